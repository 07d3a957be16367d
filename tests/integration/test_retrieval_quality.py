"""Retrieval quality of the banks in a SQLite file: known-item search over manual pages, by the real embedding model."""

from __future__ import annotations

from pathlib import Path

import pytest
from known_items import pages
from retrieval_quality import bare_model, embedding_provider, measured

from llamastack.provider import Deps
from llamastack_memory_kit.sqlite import SqliteConfig
from llamastack_provider_sqlite_vec.memory import SqliteVecMemory

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]
PAGES = 100
VECTOR_FLOOR = 0.87
KEYWORD_FLOOR = 0.88
HYBRID_FLOOR = 0.92
CLOSE = 0.01


async def test_hybrid_search_is_as_good_as_the_better_of_both(tmp_path: Path) -> None:
    sample = pages("report", PAGES)
    if len(sample) < PAGES:
        pytest.skip("the packages manpages and manpages-dev of Debian are not installed")
    embed = await embedding_provider()
    memory = SqliteVecMemory(SqliteConfig(path=tmp_path / "m.sqlite"), Deps(provider_id="m", apis={"inference": embed}))
    try:
        await memory.initialize()
        model = await bare_model(sample, embed)
        found = await measured(memory, sample, {mode: {"mode": mode} for mode in ("vector", "keyword", "hybrid")})
    finally:
        await memory.shutdown()
        await embed.shutdown()
    # The model alone, with one vector for each page, is at most a little better than three chunks of each page.
    assert found["vector"].ndcg >= max(model.ndcg - 0.03, VECTOR_FLOOR), (found, model)
    assert found["keyword"].ndcg >= KEYWORD_FLOOR, found
    better = max(found["vector"].ndcg, found["keyword"].ndcg)
    assert found["hybrid"].ndcg >= max(better - CLOSE, HYBRID_FLOOR), found
