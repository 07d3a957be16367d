"""A memory bank whose pieces its embedding model does not read to the end is told of, wherever it is registered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from llamastack.api import VectorMemoryBank
from llamastack.stack import Stack

pytestmark = pytest.mark.anyio
MODEL = "all-MiniLM-L6-v2"
CONFIG: dict[str, Any] = {
    "providers": {
        "inference": [{"provider_id": "embed", "provider_type": "sentence-embeddings"}],
        "memory": [{"provider_id": "docs", "provider_type": "remote::qdrant", "config": {"location": ":memory:"}}],
    }
}
SAYS = f"has pieces of 512 tokens, and its embedding model '{MODEL}' reads 256: the rest of each piece is not embedded"


def bank(identifier: str, size: int) -> VectorMemoryBank:
    return VectorMemoryBank(identifier=identifier, embedding_model=MODEL, chunk_size_in_tokens=size)


async def note_of(stack: Stack) -> str | None:
    return next(each.note for each in (await stack.inspect.health()).providers if each.api == "memory")


async def test_at_registration(caplog: pytest.LogCaptureFixture) -> None:
    async with Stack.from_config({**CONFIG, "refresh_interval_s": 0.1}) as stack:
        await stack.memory_banks.register_memory_bank(bank("fits", 256))
        assert await note_of(stack) is None
        await stack.memory_banks.register_memory_bank(bank("long", 512))
        assert f"memory bank 'long' {SAYS}" in (await note_of(stack) or "")
        await anyio.sleep(0.3)
        await stack.memory_banks.unregister_memory_bank("long")
        assert await note_of(stack) is None
    assert caplog.text.count(SAYS) == 1


async def test_from_the_run_config_and_after_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = {"type": "sqlite", "config": {"path": str(tmp_path / "registry.sqlite")}}
    declared = [bank("declared", 512).model_dump(exclude_none=True)]
    async with Stack.from_config({**CONFIG, "memory_banks": declared, "store": store}) as stack:
        assert "'declared'" in (await note_of(stack) or "")
        await stack.memory_banks.register_memory_bank(bank("kept", 512))
    caplog.clear()
    async with Stack.from_config({**CONFIG, "store": store}) as stack:
        assert f"memory bank 'kept' {SAYS}" in (await note_of(stack) or "")
    assert caplog.text.count(SAYS) == 1
