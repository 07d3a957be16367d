"""How well memory providers find known items: each mode of a provider, by the real embedding model."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from known_items import Page, ndcg_at_10, recall_at

from llamastack.api.memory import MemoryBankDocument
from llamastack.api.memory_banks import VectorMemoryBank
from llamastack.provider import Deps
from llamastack_memory_kit import VectorMemory
from llamastack_provider_sentence_embeddings import SENTENCE_EMBEDDINGS

MODEL = "all-MiniLM-L6-v2"
_TOKENS = 200
_CHUNKS = 50  # of which the first ten documents are taken
_WORDS_OF_BARE_MODEL = 160


class Quality(NamedTuple):
    """Of one mode.

    ndcg: nDCG@10. recall_1, recall_10: the share of targets within so many pages. query_ms: the median.
    """

    ndcg: float
    recall_1: float
    recall_10: float
    query_ms: float


async def embedding_provider() -> Any:
    """The real embedding model, started; the caller shuts it down."""
    made = await SENTENCE_EMBEDDINGS.load_factory()(
        SENTENCE_EMBEDDINGS.load_config_class()(), Deps(provider_id="embed")
    )
    await made.initialize()  # type: ignore[attr-defined]
    return made


async def bare_model(pages: Sequence[Page], embed: Any) -> Quality:
    """The model alone: each page is one vector, of its first words, and each query is compared with all of them."""
    starts = [" ".join(page.text.split()[:_WORDS_OF_BARE_MODEL]) for page in pages]
    vectors = [
        vector for start in range(0, len(pages), 32) for vector in await _embed(embed, starts[start : start + 32])
    ]
    rankings = {}
    for page in pages:
        [asked] = await _embed(embed, [page.query])
        scored = sorted(
            zip(vectors, pages, strict=True), key=lambda pair: -sum(a * b for a, b in zip(asked, pair[0], strict=True))
        )
        rankings[page.name] = [other.name for _, other in scored[:10]]
    return _quality(rankings, [0.0])


async def _embed(embed: Any, texts: list[str]) -> list[list[float]]:
    found: list[list[float]] = (await embed.embeddings(MODEL, texts)).embeddings
    return found


async def measured(
    memory: VectorMemory, pages: Sequence[Page], modes: Mapping[str, Mapping[str, Any]]
) -> dict[str, Quality]:
    """The quality of each mode. memory: started, without a bank `pages`. modes: name -> params of its queries."""
    await memory.register_memory_bank(
        VectorMemoryBank(identifier="pages", embedding_model=MODEL, chunk_size_in_tokens=_TOKENS)
    )
    await memory.insert_documents(
        "pages", [MemoryBankDocument(document_id=page.name, content=page.text) for page in pages]
    )
    found = {}
    for mode, params in modes.items():
        rankings, times = {}, []
        for page in pages:
            began = time.perf_counter()
            reply = await memory.query_documents("pages", page.query, {**params, "max_chunks": _CHUNKS})
            times.append(1000 * (time.perf_counter() - began))
            rankings[page.name] = list(dict.fromkeys(chunk.document_id for chunk in reply.chunks))
        found[mode] = _quality(rankings, times)
    return found


def _quality(rankings: Mapping[str, Sequence[str]], times: list[float]) -> Quality:
    middle = sorted(times)[len(times) // 2]
    return Quality(ndcg_at_10(rankings), recall_at(1, rankings), recall_at(10, rankings), middle)
