"""`deps.kv`: against a dict, by two processes, with expiry, cancellation and values that do not fit."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from llamastack.provider import Deps, InternalError, KeyValue, RequestTooLargeError
from llamastack.provider.key_value import MOST_BYTES, Entry
from llamastack.provider.memory_store import MemoryStore
from llamastack.provider.store import Store
from llamastack.stack.stores.sqlite import SqliteStore, SqliteStoreConfig

pytestmark = pytest.mark.anyio
KEYS = st.sampled_from(["a", "ab", "b", "ü", "\0", "%", "_"])
STEPS = st.one_of(
    st.tuples(st.sampled_from(["set", "add", "update", "swap", "swap stale"]), KEYS, st.integers(0, 9)),
    st.tuples(st.sampled_from(["get", "delete", "swap away", "update away"]), KEYS, st.just(0)),
    st.tuples(st.just("scan"), st.sampled_from(["", "a", "ü"]), st.integers(1, 4)),
)


class Note(BaseModel):
    text: str
    count: int = 0


def deps(store: Store | None = None, provider_id: str = "p", api: str = "agents") -> Deps:
    return Deps(provider_id=provider_id, api=api, store=store)


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = MemoryStore()
    if request.param == "sqlite":
        made = SqliteStore(SqliteStoreConfig(path=tmp_path / "store.sqlite"), None)
    await made.open()
    yield made
    await made.close()


# ---- against a dict --------------------------------------------------------------------------------------------------


async def _step(numbers: KeyValue[int], wanted: dict[str, int], action: str, key: str, value: int) -> None:
    if action == "scan":
        listed = [(k, v) for k, v in sorted(wanted.items()) if k.startswith(key)]
        assert [(e.key, e.value) for e in await numbers.scan(key, limit=value)] == listed[:value]
        assert [(e.key, e.value) for e in await numbers.scan(key, "a")] == [one for one in listed if one[0] > "a"]
        return
    entry = await numbers.entry(key)
    assert (None if entry is None else entry.value) == wanted.get(key) == await numbers.get(key)
    after: int | None = value
    match action:
        case "set":
            await numbers.set(key, value)
        case "add":
            assert await numbers.add(key, value) is (entry is None)
            after = wanted.get(key, value)
        case "update" | "update away":
            after = wanted.get(key, 0) + value if action == "update" else None
            assert await numbers.update(key, lambda known: after) == after
        case "swap" | "swap away" if entry is not None:
            after = value if action == "swap" else None
            swapped = await numbers.swap(entry, after)
            assert swapped is not None
            assert after is None or (swapped == await numbers.entry(key) and swapped.version > entry.version)
        case "swap stale" if entry is not None:
            await numbers.set(key, value)
            assert await numbers.swap(entry, 7) is await numbers.swap(entry, None) is None
        case "delete":
            assert await numbers.delete(key) is (entry is not None)
            after = None
        case _:
            return
    wanted |= {} if after is None else {key: after}
    if after is None:
        wanted.pop(key, None)


@given(steps=st.lists(STEPS, max_size=40))
@settings(max_examples=60, deadline=None)
def test_it_is_as_a_dict(steps: list[tuple[str, str, int]]) -> None:
    async def go() -> None:
        numbers, wanted = deps().kv("numbers", int), dict[str, int]()
        for step in steps:
            await _step(numbers, wanted, *step)

    anyio.run(go)


# ---- what belongs to whom --------------------------------------------------------------------------------------------


async def test_each_instance_and_each_name_has_values_of_its_own(store: Store) -> None:
    places = [("agents", "p", "a"), ("agents", "p", "b"), ("agents", "q", "a"), ("memory", "p", "a")]
    made = [deps(store, provider, api).kv(name, str) for api, provider, name in places]
    for number, values in enumerate(made):
        await values.set("k", str(number))
    assert [await values.get("k") for values in made] == ["0", "1", "2", "3"]
    assert [len(await values.scan()) for values in made] == [1, 1, 1, 1]
    assert await deps(store).kv("a", str).get("k") == "0"  # as after a restart


@pytest.mark.parametrize("name", ["", "a/b"])
def test_a_name_has_no_slash(name: str) -> None:
    with pytest.raises(ValueError, match="no '/'"):
        deps().kv(name, str)


@pytest.mark.parametrize("key", ["", "\ud800", "ü" * 513])
async def test_a_key_that_no_store_could_keep_is_refused(key: str, store: Store) -> None:
    texts = deps(store).kv("a", str)
    for write in (texts.set(key, "x"), texts.add(key, "x"), texts.update(key, lambda known: "x")):
        with pytest.raises(ValueError, match="1 to 1,024 bytes"):
            await write
    assert await texts.get(key) is await texts.update(key, lambda known: known) is None
    assert not await texts.delete(key)
    assert await texts.scan(key) == []


async def test_models_are_copies() -> None:
    notes = deps().kv("notes", Note)
    note = Note(text="x")
    await notes.set("k", note)
    note.count = 3
    assert await notes.get("k") == Note(text="x")


# ---- expiry ----------------------------------------------------------------------------------------------------------


async def test_values_expire(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    values = deps(store).kv("a", int)
    await values.set("k", 1, expires_in_s=10)
    assert await values.update("k", lambda known: (known or 0) + 1) == 2
    entry = await values.entry("k")
    assert entry is not None
    assert entry.expires_at == now + 10
    assert (await values.swap(entry, 3)) == await values.entry("k") != entry
    await values.add("short", 1, expires_in_s=5)
    now += 6
    assert [found.key for found in await values.scan()] == ["k"]
    assert await values.update("k", lambda known: known, expires_in_s=60) == 3
    now += 6
    assert await values.get("k") == 3
    await values.set("k", 4)
    now += 1e9
    assert await values.get("k") == 4
    assert await values.get("short") is None
    assert await values.add("short", 2)


# ---- values that do not fit ------------------------------------------------------------------------------------------


async def test_a_value_of_another_type_is_named_and_not_shown(store: Store) -> None:
    await deps(store).kv("a", str).set("k", "hidden-value")
    notes = deps(store).kv("a", Note)
    for read in (notes.get("k"), notes.scan(), notes.update("k", lambda known: known)):
        with pytest.raises(InternalError, match=r"kv/agents/a/p 'k'.*does not fit") as caught:
            await read
        assert caught.value.provider_id == "p"
        assert "hidden" not in f"{caught.value}{caught.value.__cause__}"
        assert caught.value.__suppress_context__
    assert await notes.keys() == ["k"]
    await notes.set("k", Note(text="new"))  # it can be replaced, and deleted
    assert await notes.delete("k")


async def test_a_value_of_another_type_is_not_written() -> None:
    numbers = deps().kv("a", int)
    with pytest.raises(InternalError, match="to be kept does not fit") as caught:
        await numbers.set("k", cast(int, "hidden-value"))
    assert "hidden" not in str(caught.value)
    assert await numbers.get("k") is None


async def test_a_value_may_be_as_large_as_the_limit_says(store: Store) -> None:
    texts = deps(store).kv("a", str)
    largest = "x" * (MOST_BYTES - 2)
    await texts.set("k", largest)
    assert await texts.get("k") == largest
    with pytest.raises(RequestTooLargeError, match=r"kv/agents/a/p 'k' is too large.*8,388,609.*at most 8,388,608"):
        await texts.set("k", f"{largest}x")
    assert await texts.get("k") == largest


# ---- several workers -------------------------------------------------------------------------------------------------


async def _count(path: Path, times: int) -> None:
    made = SqliteStore(SqliteStoreConfig(path=path, busy_timeout_s=60), None)
    await made.open()
    try:
        numbers = deps(made).kv("numbers", int)
        for _ in range(times):
            await numbers.update("k", lambda known: (known or 0) + 1)
    finally:
        await made.close()


def _count_in_process(path: Path, times: int) -> None:
    anyio.run(_count, path, times)


def test_processes_lose_no_update(tmp_path: Path) -> None:
    context: Any = multiprocessing.get_context("spawn")
    path = tmp_path / "store.sqlite"
    processes = [context.Process(target=_count_in_process, args=(path, 50)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]

    async def read() -> Entry[int] | None:
        made = SqliteStore(SqliteStoreConfig(path=path), None)
        await made.open()
        try:
            return await deps(made).kv("numbers", int).entry("k")
        finally:
            await made.close()

    entry = anyio.run(read)
    assert entry is not None
    assert entry.value == 100


async def test_tasks_lose_no_update_and_a_cancelled_one_leaves_a_whole_value(store: Store) -> None:
    notes = deps(store).kv("notes", Note)
    done = 0

    async def change() -> None:
        nonlocal done
        await notes.update("k", lambda known: Note(text="whole", count=0 if known is None else known.count + 1))
        done += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(change)
        await anyio.sleep(0.005)
        tasks.cancel_scope.cancel()
    note = await notes.get("k")
    assert note is None or note.text == "whole"
    assert -1 if note is None else note.count >= done - 1
    before = -1 if note is None else note.count
    done = 0
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(change)
    after = await notes.get("k")
    assert after is not None
    assert after.count == before + 20
    assert done == 20
