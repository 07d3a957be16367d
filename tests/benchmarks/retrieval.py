"""Retrieval quality of the memory providers that need no server: `python tests/benchmarks/retrieval.py [pages]`.

It prints nDCG@10, R@1, R@10 and the median time of a query (the query's embedding included) for each provider and mode.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import anyio

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from known_items import pages
from retrieval_quality import Quality, bare_model, embedding_provider, measured

from llamastack.provider import Deps
from llamastack.stack.discovery import Discovery

PROVIDERS = {"sqlite-vec": {"path": "memory.sqlite"}, "remote::qdrant": {"path": "qdrant"}}
MODES: dict[str, dict[str, Any]] = {
    "vector": {"mode": "vector"},
    "keyword": {"mode": "keyword"},
    "hybrid": {"mode": "hybrid"},
    "hybrid, reciprocal rank": {"mode": "hybrid", "fusion": {"type": "reciprocal_rank"}},
}


def _print(provider: str, mode: str, quality: Quality) -> None:
    ndcg, first, ten, query_ms = quality
    print(f"| {provider} | {mode} | {ndcg:.3f} | {first:.3f} | {ten:.3f} | {query_ms:.1f} |", flush=True)


async def main(most: int) -> None:
    sample = pages("report", most)
    if not sample:
        sys.exit("error: no manual pages; on Debian: apt install manpages manpages-dev")
    print(f"{len(sample)} pages\n\n| provider | mode | nDCG@10 | R@1 | R@10 | query ms |\n|---|---|---|---|---|---|")
    embed = await embedding_provider()
    try:
        _print("none", "the model alone, first 160 words", await bare_model(sample, embed))
        for provider_type, config in PROVIDERS.items():
            with tempfile.TemporaryDirectory() as folder:
                spec = Discovery().find("llamastack.providers.memory", provider_type).load()
                settings = spec.load_config_class()(path=str(Path(folder, config["path"])))
                memory: Any = await spec.load_factory()(settings, Deps(provider_id="m", apis={"inference": embed}))
                try:
                    await memory.initialize()
                    for mode, quality in (await measured(memory, sample, MODES)).items():
                        _print(provider_type, mode, quality)
                finally:
                    await memory.shutdown()
    finally:
        await embed.shutdown()


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 300)
