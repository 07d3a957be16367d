"""The stores of the core against a dict while time goes by; the suite of stores has the rest of what they promise."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from llamastack.provider import memory_store
from llamastack.provider.store import TOMBSTONE_S, Record, Store
from llamastack.stack.stores import sqlite
from llamastack.stack.stores.memory import MemoryStore, MemoryStoreConfig
from llamastack.stack.stores.sqlite import SqliteStore, SqliteStoreConfig

pytestmark = pytest.mark.anyio
KINDS = ["followed", "other"]
KEYS = ["a", "ab", "b", "ü"]


def sqlite_in(folder: Path) -> SqliteStore:
    return SqliteStore(SqliteStoreConfig(path=folder / "store.sqlite"), None)


def memory_in(folder: Path) -> MemoryStore:
    return MemoryStore(MemoryStoreConfig(), None)


class StoreAgainstDict(RuleBasedStateMachine):
    """A store against a dict, with a follower of one kind. The clock stands still but where a rule moves it."""

    make: Callable[[Path], Store]

    def __init__(self) -> None:
        super().__init__()
        self._folder = TemporaryDirectory()
        self._portal_context = start_blocking_portal()
        self._portal = self._portal_context.__enter__()
        self.now = time.time()
        self._clock = _clock(lambda: self.now)
        self._clock.__enter__()
        self.store = type(self).make(Path(self._folder.name))
        self.call(self.store.open, ["followed"])
        self.wanted: dict[tuple[str, str], Record] = {}
        self.versions: set[int] = {0}
        self.seen: dict[str, Record] = {}
        self.seen_up_to = 0

    def call(self, method: Callable[..., Awaitable[Any]], *arguments: Any, **named: Any) -> Any:
        async def run() -> Any:
            return await method(*arguments, **named)

        return self._portal.call(run)

    def there(self, kind: str, key: str) -> Record | None:
        record = self.wanted.get((kind, key))
        if record is not None and record.expires_at is not None and record.expires_at <= self.now:
            return None
        return record

    def keeps(self, record: Record) -> None:
        assert record.version > max(self.versions)
        self.versions.add(record.version)
        self.wanted[record.kind, record.key] = record

    @rule(
        kind=st.sampled_from(KINDS),
        key=st.sampled_from(KEYS),
        value=st.text(max_size=3),
        lasts_s=st.sampled_from([None, 5.0]),
    )
    def put(self, kind: str, key: str, value: str, lasts_s: float | None) -> None:
        expires_at = None if lasts_s is None else self.now + lasts_s
        kept = self.call(self.store.put, kind, key, value, expires_at=expires_at)
        assert kept == (kind, key, value, kept.version, expires_at)
        self.keeps(kept)

    @rule(
        kind=st.sampled_from(KINDS),
        key=st.sampled_from(KEYS),
        value=st.sampled_from([None, "x", "y"]),
        knows=st.booleans(),
    )
    def swap(self, kind: str, key: str, value: str | None, knows: bool) -> None:
        there = self.there(kind, key)
        right = None if there is None else there.version
        version = right if knows else (1 if right is None else None if right % 2 else right - 1)
        if value is None and version is None:
            with pytest.raises(ValueError, match="swap"):
                self.call(self.store.swap, kind, key, value, version=version)
            return
        kept = self.call(self.store.swap, kind, key, value, version=version)
        if version != right:
            assert kept is None
        elif value is None:
            assert kept.value is None
            assert kept.version > max(self.versions)
            self.versions.add(kept.version)
            del self.wanted[kind, key]
        else:
            self.keeps(kept)

    @rule(kind=st.sampled_from(KINDS), key=st.sampled_from(KEYS))
    def delete(self, kind: str, key: str) -> None:
        was_there = self.there(kind, key) is not None
        assert self.call(self.store.delete, kind, key) == was_there
        if was_there:
            del self.wanted[kind, key]

    @rule(seconds=st.sampled_from([3.0, 90.0, TOMBSTONE_S + 1]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def follow(self) -> None:
        changes = self.call(self.store.changes_since, self.seen_up_to, ["followed"])
        assert [record.version for record in changes.records] == sorted(record.version for record in changes.records)
        assert all(record.version > self.seen_up_to or changes.complete for record in changes.records)
        if changes.complete:
            self.seen.clear()
        for record in changes.records:
            if record.value is None:
                self.seen.pop(record.key, None)
            else:
                self.seen[record.key] = record
        self.seen_up_to = changes.version
        alive = {key for key in self.seen if self.seen[key].expires_at is None or self.seen[key].expires_at > self.now}
        assert {key: self.seen[key] for key in alive} == {
            key: self.wanted["followed", key] for key in KEYS if self.there("followed", key) is not None
        }

    @rule(kind=st.sampled_from(KINDS), prefix=st.sampled_from(["", "a"]), after=st.sampled_from(["", *KEYS]))
    def scan(self, kind: str, prefix: str, after: str) -> None:
        wanted = [
            self.there(kind, key)
            for key in sorted(KEYS)
            if self.there(kind, key) is not None and key.startswith(prefix) and key > after
        ]
        assert self.call(self.store.scan, kind, prefix=prefix, after=after, limit=2) == wanted[:2]

    @invariant()
    def holds_what_was_put(self) -> None:
        for kind in KINDS:
            for key in KEYS:
                assert self.call(self.store.get, kind, key) == self.there(kind, key)

    def teardown(self) -> None:
        self.call(self.store.close)
        self._clock.__exit__(None, None, None)
        self._portal_context.__exit__(None, None, None)
        self._folder.cleanup()


@contextmanager
def _clock(now: Callable[[], float]) -> Iterator[None]:
    clock = SimpleNamespace(time=now, monotonic=time.monotonic, sleep=time.sleep)
    with pytest.MonkeyPatch.context() as patch:
        for module in (sqlite, memory_store):
            patch.setattr(module, "time", clock)
        yield


class Sqlite(StoreAgainstDict):
    make = staticmethod(sqlite_in)


class Memory(StoreAgainstDict):
    make = staticmethod(memory_in)


Sqlite.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
Memory.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
test_sqlite_against_a_dict = Sqlite.TestCase
test_memory_against_a_dict = Memory.TestCase


@pytest.mark.parametrize("make", [sqlite_in, memory_in])
async def test_a_follower_that_was_away_for_longer_than_a_day_learns_what_is_gone(
    make: Callable[[Path], Store], tmp_path: Path
) -> None:
    now = time.time()
    with _clock(lambda: now):
        store = make(tmp_path)
        await store.open(["followed"])
        await store.put("followed", "gone", "1")
        kept = await store.put("followed", "kept", "1")
        seen = (await store.changes_since(0, ["followed"])).version
        await store.delete("followed", "gone")
        now += TOMBSTONE_S + 1
        await store.put("other", "a", "1")  # a write removes what has expired
        changes = await store.changes_since(seen, ["followed"])
        assert changes.complete
        assert changes.records == [kept]
        await store.close()
