"""What follows the store: it ends before the catalogues go, and loses no change that it failed to follow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from scripted_fake import Script

from llamastack.api import Model
from llamastack.provider.store import Changes
from llamastack.stack import Stack
from llamastack.stack.resources import kept_registrations
from llamastack.stack.resources.kept_registrations import StoreFollower
from llamastack.stack.stores import memory
from llamastack.stack.stores.memory import MemoryStore, MemoryStoreConfig

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def followed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_registrations, "_FOLLOW_INTERVAL_S", 0.001)


async def test_a_stack_that_stops_while_it_follows_logs_nothing(
    scripted: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reading = anyio.Event()

    class Slow(MemoryStore):
        async def changes_since(self, version: int, kinds: Collection[str]) -> Changes:
            if version:
                reading.set()
                with anyio.CancelScope(shield=True):  # as a store that works in a thread
                    await anyio.sleep(0.05)
            return Changes(version + 1, [], complete=True)

    monkeypatch.setattr(memory, "MemoryStore", Slow)
    with caplog.at_level(logging.WARNING):
        async with scripted("a"):
            await reading.wait()
    assert not caplog.records


async def test_changes_that_failed_to_be_followed_are_followed_again(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[list[str]] = []

    class Failing:
        pair = SimpleNamespace(resource_api="models")

        async def follow(self, changes: Changes) -> None:
            asked.append([record.key for record in changes.records])
            if len(asked) == 2:
                raise RuntimeError("not now")

    store = MemoryStore(MemoryStoreConfig(), None)
    await store.put("another kind", "k", "{}")  # or all that it keeps would be read each time
    catalogues: Any = [Failing()]
    follower = StoreFollower(store, catalogues)
    await follower.take()
    async with anyio.create_task_group() as group:
        group.start_soon(follower.follow)
        await store.put("models", "m", "{}")
        with anyio.fail_after(5):
            while len(asked) < 3:
                await anyio.sleep(0.001)
        await anyio.sleep(0.02)
        group.cancel_scope.cancel()
    assert asked == [[], ["m"], ["m"]], "each change once more after a failure, and not again when it is followed"
    assert "the store cannot be followed" in caplog.text


async def test_a_stack_that_starts_again_reads_all_that_the_store_keeps(
    scripted: Callable[..., Stack], script: Callable[..., Script]
) -> None:
    script("a", serves=[])
    stack = scripted("a")
    async with stack:
        await stack.models.register_model(Model(identifier="kept"))
        await anyio.sleep(0.05)  # it follows its own registration
    a = script("a", serves=[])
    async with stack:
        assert a.registered == ["kept"]
        assert [model.identifier for model in await stack.models.list_models()] == ["kept"]
