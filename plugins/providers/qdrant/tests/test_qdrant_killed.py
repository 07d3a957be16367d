"""kill -9 in the middle of inserts: after a restart each insert is there whole or not at all.

As a program, with a folder and a version, it replaces the same documents again and again and prints each insert that is
done. An insert is of three documents of 200 chunks each; one of them is new.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from itertools import count
from pathlib import Path

import anyio
import pytest

from llamastack.api.memory_banks import VectorMemoryBank
from llamastack.provider import Deps
from llamastack_memory_kit import Bank, Insert, Query, StoredChunk
from llamastack_provider_qdrant.config import QdrantConfig
from llamastack_provider_qdrant.memory import QdrantMemory, get_adapter_impl

pytestmark = pytest.mark.anyio

TIMES = int(os.environ.get("QDRANT_KILLS", "4"))
BANK = Bank(VectorMemoryBank(identifier="notes", embedding_model="m", chunk_size_in_tokens=64), 8)
CHUNKS = 200


async def opened(folder: str) -> QdrantMemory:
    config = QdrantConfig.model_validate({"path": folder})
    memory = await get_adapter_impl(config, Deps(provider_id="docs", apis={"inference": object()}))
    await memory.open()
    if await memory.find_bank("notes") is None:
        await memory.create_bank(BANK)
    return memory


def version(number: int) -> Insert:
    chunks = [
        StoredChunk(name, f"word{place}", 1, {"version": number}, place, [1.0, place, number, 0, 0, 0, 0, 1])
        for name in ("a", "b", f"new{number}")
        for place in range(CHUNKS)
    ]
    names = list(dict.fromkeys(chunk.document_id for chunk in chunks))
    return Insert(names, chunks, time.time_ns() // 1000, time.time(), None)


async def test_inserts_are_whole_or_not_there_after_kill(tmp_path: Path) -> None:
    done = -1
    chance = random.Random(7)
    for _ in range(TIMES):
        # The pipe to the process is closed only after it has ended.
        with subprocess.Popen(
            [sys.executable, __file__, str(tmp_path / "q"), str(done + 1)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline()]
            time.sleep(chance.uniform(0, 0.4))
            process.kill()
            lines += process.stdout.readlines()
        acknowledged = int([line for line in lines if line.endswith("\n")][-1])
        memory = await opened(str(tmp_path / "q"))
        found = await memory.search(BANK, Query("", [1.0] * 8, 10**6, None, time.time()))
        await memory.close()
        counted = Counter((each.chunk.document_id, each.chunk.metadata["version"]) for each in found)
        newest = max(number for _, number in counted)  # type: ignore[type-var]
        assert newest in (acknowledged, acknowledged + 1)
        assert set(counted.values()) == {CHUNKS}
        news = {(f"new{number}", number) for number in range(newest + 1)}
        assert counted.keys() == {("a", newest), ("b", newest), *news}
        done = int(str(newest))


async def main(folder: str, first: int) -> None:
    memory = await opened(folder)
    for number in count(first):
        await memory.store(BANK, version(number))
        print(number, flush=True)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], int(sys.argv[2]))
