"""A stack with very many registrations gives its event loop a turn again and again."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from scripted_fake import Script, ScriptedInference

from llamastack.stack import Stack
from llamastack.stack.in_turns import IN_ONE_TURN
from llamastack.stack.resources.catalogue import ResourceCatalogue
from llamastack.stack.resources.reconciliation import Registrations
from llamastack.stack.stores.sqlite import SqliteStore, SqliteStoreConfig

pytestmark = pytest.mark.anyio
MANY = 5 * IN_ONE_TURN
WORK = (
    (Registrations, "_take_in"),
    (Registrations, "is_taken"),
    (ScriptedInference, "register_model"),
    (ResourceCatalogue, "_shown"),
)


@asynccontextmanager
async def counted_per_turn(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[dict[str, Counter[int]]]:
    """How often each piece of work is done in each turn of the loop."""
    done: dict[str, Counter[int]] = {}
    turn = 0

    def counted(owner: type, name: str) -> None:
        original, counts = getattr(owner, name), done.setdefault(name, Counter())

        def work(*arguments: Any, **named: Any) -> Any:
            counts[turn] += 1
            return original(*arguments, **named)

        async def awaited_work(*arguments: Any, **named: Any) -> Any:
            return await work(*arguments, **named)

        monkeypatch.setattr(owner, name, awaited_work if inspect.iscoroutinefunction(original) else work)

    async def count_turns() -> None:
        nonlocal turn
        while True:
            await asyncio.sleep(0)
            turn += 1

    for owner, name in WORK:
        counted(owner, name)
    counting = asyncio.create_task(count_turns())
    yield done
    counting.cancel()


async def write_registrations(path: Path) -> None:
    store = SqliteStore(SqliteStoreConfig(path=path), None)
    await store.open()
    await store.close()
    with sqlite3.connect(path) as connection:
        connection.executemany(
            "INSERT INTO records (kind, key, value) VALUES ('models', ?, ?)",
            ((f"m{n}", f'{{"identifier": "m{n}", "provider_id": "a"}}') for n in range(MANY)),
        )
    connection.close()


@pytest.mark.parametrize("listed", [0, MANY], ids=["unlisted", "listed"])
async def test_no_turn_of_the_loop_handles_many_registrations(
    scripted: Callable[..., Stack],
    script: Callable[..., Script],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    listed: int,
) -> None:
    path = tmp_path / "registry.sqlite"
    await write_registrations(path)
    a = script("a", serves=[f"m{n}" for n in range(listed)])
    store = {"type": "sqlite", "config": {"path": str(path)}}
    async with counted_per_turn(monkeypatch) as done, scripted("a", store=store) as stack:
        await stack.instances["inference"][0].refresh(force=True)
        assert len(await stack.models.list_models()) == MANY
    assert len(a.registered) >= MANY
    for name, counts in done.items():
        assert counts.total() >= MANY, f"{name} is how it works no more: mend the test"
        assert max(counts.values()) <= 3 * IN_ONE_TURN, (
            f"{name} is called too often in one turn: {max(counts.values())}"
        )
