"""Banks in a SQLite file: filters, processes that are killed, several at once, files that are none of ours."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from bank_memory_fake import Embeddings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamastack.api import KeywordMemoryBank, MemoryBankDocument, VectorMemoryBank
from llamastack.provider import BackendError, Deps, InvalidRequestError, ProviderUnavailableError
from llamastack_memory_kit import Combination, Comparison, Filter, matches
from llamastack_memory_kit.sqlite import SqliteConfig
from llamastack_provider_sqlite_vec.memory import SqliteVecMemory

pytestmark = pytest.mark.anyio
BANK = VectorMemoryBank(identifier="b", embedding_model="m", chunk_size_in_tokens=20)
WORDS = KeywordMemoryBank(identifier="w")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def started(path: Path, **config: Any) -> AsyncIterator[SqliteVecMemory]:
    deps = Deps(provider_id="p", apis={"inference": Embeddings()})
    memory = SqliteVecMemory(SqliteConfig(path=path, **config), deps)
    try:
        await memory.initialize()
        yield memory
    finally:
        await memory.shutdown()


def documents(**texts: str) -> list[MemoryBankDocument]:
    return [MemoryBankDocument(document_id=name, content=text) for name, text in texts.items()]


async def found(memory: SqliteVecMemory, bank: str, query: str, **params: Any) -> set[str]:
    reply = await memory.query_documents(bank, query, {"max_chunks": 1000, **params})
    return {chunk.document_id for chunk in reply.chunks}


# ---- filters ---------------------------------------------------------------------------------------------------------

KEYS = st.sampled_from(["a", "b", "a.b", "$", 'odd "key"'])
NUMBERS = st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3)
VALUES = st.booleans() | NUMBERS | TEXTS | st.sampled_from(["x", "y", 0, 1, 0.0, 1.0, True, False])
METADATA = st.dictionaries(
    KEYS, VALUES | st.none() | st.lists(VALUES, max_size=3) | st.dictionaries(KEYS, VALUES, max_size=1), max_size=3
)
COMPARISONS = (
    st.builds(Comparison, KEYS, st.sampled_from(["eq", "ne"]), VALUES)
    | st.builds(Comparison, KEYS, st.sampled_from(["gt", "gte", "lt", "lte"]), NUMBERS | TEXTS)
    | st.builds(Comparison, KEYS, st.sampled_from(["in", "nin"]), st.lists(VALUES, min_size=1, max_size=3).map(tuple))
)
FILTERS: st.SearchStrategy[Filter] = st.recursive(
    COMPARISONS,
    lambda parts: st.builds(
        Combination, st.sampled_from(["and", "or"]), st.lists(parts, min_size=1, max_size=3).map(tuple)
    ),
    max_leaves=5,
)


def params_of(wanted: Filter) -> dict[str, Any]:
    if isinstance(wanted, Combination):
        return {"type": wanted.operator, "filters": [params_of(part) for part in wanted.parts]}
    value = list(wanted.value) if isinstance(wanted.value, tuple) else wanted.value
    return {"type": wanted.operator, "key": wanted.key, "value": value}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kept=st.lists(METADATA, min_size=1, max_size=8), wanted=st.lists(FILTERS, min_size=1, max_size=8))
def test_a_filter_finds_what_it_means(kept: list[Any], wanted: list[Filter], tmp_path: Path) -> None:
    async def check() -> None:
        async with started(tmp_path / "memory.sqlite") as memory:
            await memory.register_memory_bank(BANK)
            await memory.insert_documents(
                "b",
                [MemoryBankDocument(document_id=str(n), content="quoll", metadata=each) for n, each in enumerate(kept)],
            )
            for each in wanted:
                names = {str(n) for n, metadata in enumerate(kept) if matches(each, metadata)}
                for mode in ("vector", "keyword"):
                    assert await found(memory, "b", "quoll", mode=mode, filters=params_of(each)) == names
            await memory.unregister_memory_bank(BANK)

    anyio.run(check)


# ---- what is kept ----------------------------------------------------------------------------------------------------

_WRITER = """
import sys, anyio
from pathlib import Path
from bank_memory_fake import Embeddings
from llamastack.api import MemoryBankDocument
from llamastack.provider import Deps
from llamastack_memory_kit.sqlite import SqliteConfig
from llamastack_provider_sqlite_vec.memory import SqliteVecMemory

async def main(path):
    memory = SqliteVecMemory(SqliteConfig(path=Path(path)), Deps(provider_id="p", apis={"inference": Embeddings()}))
    await memory.initialize()
    for call in range(10_000):
        await memory.insert_documents("b", [
            MemoryBankDocument(document_id=f"{call}-{n}", content=f"quoll {call} " * 30) for n in range(20)
        ] + [MemoryBankDocument(document_id="replaced", content=f"quoll of call {call}")])
        print(call, flush=True)

anyio.run(main, sys.argv[1])
"""


@pytest.mark.parametrize("after_calls", [1, 3, 6])
async def test_a_killed_process_leaves_whole_calls(after_calls: int, tmp_path: Path, worker_path: str) -> None:
    path = tmp_path / "memory.sqlite"
    async with started(path) as memory:
        await memory.register_memory_bank(BANK)
    said = await anyio.to_thread.run_sync(_killed, path, after_calls, worker_path)
    async with started(path) as memory:
        for mode in ("vector", "keyword"):
            names = await found(memory, "b", "quoll", mode=mode)
            counted: dict[str, int] = {}
            for name in names - {"replaced"}:
                counted[name.partition("-")[0]] = counted.get(name.partition("-")[0], 0) + 1
            assert set(counted.values()) == {20}
            assert {*map(str, range(said + 1))} <= counted.keys()  # what was answered is there
            assert len(counted) <= said + 2
        last = await memory.query_documents("b", "call", {"mode": "keyword", "max_chunks": 1000})
        assert [str(c.content) for c in last.chunks] == [f"quoll of call {max(map(int, counted))}"]
        await memory.insert_documents("b", documents(after="quoll"))
        assert "after" in await found(memory, "b", "quoll")


def _killed(path: Path, after_calls: int, worker_path: str) -> int:
    """Kill a process that inserts, in the middle of a call; the last call that was answered."""
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": worker_path}
    ) as process:
        assert process.stdout is not None
        said = -1
        for line in process.stdout:
            said = int(line)
            if said == after_calls:
                process.send_signal(signal.SIGKILL)
        return said


@pytest.fixture
def worker_path() -> str:
    return ":".join(each for each in sys.path if each)


async def test_two_processes_see_each_other(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    async with started(path) as one, started(path) as two:
        await one.register_memory_bank(BANK)
        assert [bank.identifier for bank in await two.list_memory_banks()] == ["b"]
        await two.insert_documents("b", documents(x="quoll"))
        assert await found(one, "b", "quoll") == {"x"}
        async with anyio.create_task_group() as tasks:
            for n in range(10):
                tasks.start_soon(one.insert_documents, "b", documents(x=f"one {n} quoll", y=f"one {n}"))
                tasks.start_soon(two.insert_documents, "b", documents(x=f"two {n} quoll", y=f"two {n}"))
        texts = {str(chunk.content) for chunk in (await one.query_documents("b", "q", {"max_chunks": 9})).chunks}
        [y] = [text for text in texts if "quoll" not in text]
        assert texts == {y, f"{y} quoll"}
        await one.unregister_memory_bank(BANK)
        assert await two.list_memory_banks() == []


# ---- words -----------------------------------------------------------------------------------------------------------


async def test_words_are_ranked_and_stemmed(tmp_path: Path) -> None:
    async with started(tmp_path / "memory.sqlite") as memory:
        await memory.register_memory_bank(WORDS)
        await memory.insert_documents(
            "w", documents(long="a quoll, and then many other animals of that land", short="Quolls hunt.", none="bees")
        )
        reply = await memory.query_documents("w", "hunting quoll OR NEAR(")
        assert [chunk.document_id for chunk in reply.chunks] == ["short", "long"]
        assert (reply.scored_by, min(reply.scores) > 0) == ("bm25", True)
        with pytest.raises(InvalidRequestError, match="10001 different words; allowed in a search by words: 10000"):
            await memory.query_documents("w", " ".join(map(str, range(10_001))))


# ---- files -----------------------------------------------------------------------------------------------------------


def _other_program(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE t (x)")
    db.close()


def _other_provider(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA application_id = 0x4C4D4D52")
        db.execute("PRAGMA user_version = 1")
        db.execute("CREATE TABLE banks (x)")
    db.close()


def _other_version(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA application_id = 0x4C4D5356")
        db.execute("PRAGMA user_version = 99")
        db.execute("CREATE TABLE t (x)")
    db.close()


@pytest.mark.parametrize(
    ("make", "error", "why"),
    [
        (_other_program, BackendError, "the file belongs to another program"),
        (_other_provider, BackendError, "the file belongs to another program"),
        (_other_version, BackendError, "another version of this provider \\(99; this one reads 1\\)"),
        (lambda path: path.write_bytes(b"no database at all " * 500), BackendError, "is damaged"),
        (lambda path: path.mkdir(), ProviderUnavailableError, "directory"),
    ],
)
async def test_a_file_that_is_none_of_ours_is_refused(
    make: Callable[[Path], None], error: type[Exception], why: str, tmp_path: Path
) -> None:
    path = tmp_path / "memory.sqlite"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(error, match=why) as caught:
        async with started(path):
            pass
    assert str(path) in str(caught.value)
    assert (path.read_bytes() if path.is_file() else b"") == before


async def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "memory.sqlite"
    async with started(path) as memory:
        await memory.register_memory_bank(WORDS)
        for each in path.parent.iterdir():
            assert each.stat().st_mode & 0o077 == 0, each


async def test_a_call_before_the_start_is_refused(tmp_path: Path) -> None:
    memory = SqliteVecMemory(SqliteConfig(path=tmp_path / "m"), Deps(provider_id="p", apis={"inference": Embeddings()}))
    with pytest.raises(ProviderUnavailableError, match="not started"):
        await memory.list_memory_banks()
    await memory.shutdown()
    assert json.dumps(sorted(each.name for each in tmp_path.iterdir())) == "[]"


async def test_no_call_waits_for_ever_when_the_file_is_closed(tmp_path: Path) -> None:
    refused = 0
    async with started(tmp_path / "memory.sqlite") as memory:
        await memory.register_memory_bank(WORDS)

        async def ask() -> None:
            nonlocal refused
            for _ in range(20):
                try:
                    await memory.query_documents("w", "quoll")
                except ProviderUnavailableError:
                    refused += 1

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                for _ in range(30):
                    tasks.start_soon(ask)
                tasks.start_soon(memory.shutdown)
                for _ in range(30):
                    tasks.start_soon(ask)
        before = refused
        await ask()
        assert refused == before + 20
        await memory.initialize()
        assert await found(memory, "w", "quoll") == set()
