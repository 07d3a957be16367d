"""The file of the sqlite store: its schema, its upgrade, files that cannot be used, and what reading it costs."""

from __future__ import annotations

import json
import multiprocessing
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from llamastack.provider.errors import StoreUnavailableError
from llamastack.provider.store import TOMBSTONE_S, Record
from llamastack.stack.stores.sqlite import SqliteStore, SqliteStoreConfig

pytestmark = pytest.mark.anyio

VERSION_0 = """
CREATE TABLE objects (
    kind TEXT NOT NULL,
    identifier TEXT NOT NULL,
    provider_id TEXT NOT NULL,
    body TEXT,
    sequence INTEGER NOT NULL UNIQUE,
    PRIMARY KEY (kind, identifier)
);
INSERT INTO objects VALUES ('models', 'm', 'a', '{"identifier": "m", "provider_id": "a"}', 7);
INSERT INTO objects VALUES ('models', 'gone', 'a', NULL, 9);
INSERT INTO objects VALUES ('models last listed', 'a', 'a', '["x"]', 4);
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry.sqlite"


def store_at(path: Path, busy_timeout_s: float = 10.0) -> SqliteStore:
    return SqliteStore(SqliteStoreConfig(path=path, busy_timeout_s=busy_timeout_s), None)


def run_sql(path: Path, script: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.executescript(script)
    connection.close()


async def test_a_file_of_version_0_is_upgraded(path: Path) -> None:
    run_sql(path, VERSION_0)
    store = store_at(path)
    await store.open(["models"])
    try:
        changes = await store.changes_since(0, ["models"])
        assert changes.records == [Record("models", "m", '{"identifier": "m", "provider_id": "a"}', 7)]
        assert changes.version == 9
        (gone,) = (await store.changes_since(7, ["models"])).records
        assert (gone.key, gone.value) == ("gone", None)
        assert gone.expires_at == pytest.approx(time.time() + TOMBSTONE_S, abs=60)
        listed = await store.get("models last listed", "a")
        assert listed is not None
        assert listed.value == '["x"]'
        assert (await store.put("models", "new", "{}")).version == 10
    finally:
        await store.close()


def in_processes(count: int, work: Callable[[Path, int], None], path: Path) -> list[int | None]:
    """Run `work` in forked processes at once; their exit codes."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(path, number)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def open_and_put(path: Path, number: int) -> None:
    async def work() -> None:
        store = store_at(path)
        await store.open(["models"])
        await store.put("models", f"of {number}", "{}")
        await store.close()

    anyio.run(work)


@pytest.mark.parametrize("script", ["", VERSION_0], ids=["new", "upgraded"])
async def test_several_processes_open_it_at_once(path: Path, script: str) -> None:
    run_sql(path, script)
    assert in_processes(8, open_and_put, path) == [0] * 8
    store = store_at(path)
    await store.open()
    found = {record.key for record in await store.scan("models", limit=100)}
    await store.close()
    assert found == {f"of {number}" for number in range(8)} | ({"m"} if script else set())


async def test_an_upgrade_that_fails_changes_nothing(path: Path) -> None:
    run_sql(path, VERSION_0 + "CREATE TABLE removed (x);")
    with pytest.raises(OSError, match=r"store .*registry.sqlite cannot be opened: table removed already exists"):
        await store_at(path).open()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT COUNT(*) FROM objects").fetchone() == (3,)
        assert connection.execute("PRAGMA user_version").fetchone() == (0,)
    connection.close()


async def test_a_file_of_a_newer_version_is_refused(path: Path) -> None:
    run_sql(path, "PRAGMA user_version = 7")
    with pytest.raises(OSError, match=r"cannot be opened: a newer llamastack wrote it: its schema has version 7"):
        await store_at(path).open()


async def test_a_damaged_file_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(OSError, match=r"the file is damaged or not a store: restore a copy, or remove it"):
        await store_at(path).open()


async def test_a_file_that_is_damaged_later_is_told(path: Path) -> None:
    store = store_at(path)
    await store.open()
    try:
        for number in range(200):
            await store.put("kind", f"{number:04}", "x" * 500)
        writer = store._writer
        assert writer is not None
        writer.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(os.urandom(path.stat().st_size - 8192))
        other = store_at(path)
        await other.open()
        try:
            with pytest.raises(StoreUnavailableError, match="the file is damaged"):
                await other.scan("kind", limit=1000)
        finally:
            await other.close()
    finally:
        await store.close()


def open_as_another_user(path: Path, _: int) -> None:
    if os.getuid() == 0:
        os.setresuid(65534, 65534, 65534)

    async def work() -> None:
        with pytest.raises(OSError, match=r"store .* cannot be opened: .*(Permission denied|has no right)"):
            await store_at(path).open()

    anyio.run(work)


@pytest.mark.parametrize("there", [False, True])
async def test_a_folder_without_rights_is_told(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    if there:
        store = store_at(folder / "registry.sqlite")
        await store.open()
        await store.close()
    folder.chmod(0o500)
    try:
        assert in_processes(1, open_as_another_user, folder / "registry.sqlite") == [0]
    finally:
        folder.chmod(0o700)


async def test_changes_are_found_by_an_index(path: Path) -> None:
    """However much providers keep in `deps.kv`: what follows the store does not read it."""
    store = store_at(path)
    await store.open(["models"])
    reader = store._reader
    assert reader is not None
    plan = reader.connection.execute(
        "EXPLAIN QUERY PLAN SELECT * FROM records WHERE kind = 'models' AND version > 5 ORDER BY version"
    ).fetchall()
    await store.close()
    assert [row[3] for row in plan] == ["SEARCH records USING INDEX records_of_kind (kind=? AND rowid>?)"]


async def test_what_has_expired_is_removed_a_few_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamastack.stack.stores.sqlite._MOST_REMOVED", 3)
    store = store_at(path)
    await store.open(["models"])
    writer = store._writer
    assert writer is not None

    def rows() -> int:
        count: int = writer.connection.execute("SELECT COUNT(*) FROM records").fetchone()[0]
        return count

    try:
        store._clean_at = float("inf")
        for number in range(8):
            await store.put("kv", str(number), "{}", expires_at=time.time() - 1)
        store._clean_at = 0
        counted = []
        for _ in range(4):
            await store.put("kv", "stays", "{}")
            counted.append(rows())
        assert counted == [6, 3, 1, 1]
    finally:
        await store.close()


async def test_a_follower_that_missed_a_removed_tombstone_reads_all(path: Path) -> None:
    store = store_at(path)
    await store.open(["models"])
    try:
        seen = (await store.put("models", "gone", "{}")).version
        await store.put("models", "stays", "{}")
        await store.delete("models", "gone")
        assert not (await store.changes_since(seen, ["models"])).complete
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE records SET expires_at = 1 WHERE value IS NULL")
        connection.close()
        store._clean_at = 0
        await store.put("kv", "any", "{}")
        changes = await store.changes_since(seen, ["models"])
        assert changes.complete
        assert [record.key for record in changes.records] == ["stays"]
        assert not (await store.changes_since(changes.version, ["models"])).complete
    finally:
        await store.close()


async def test_what_is_deleted_of_other_kinds_leaves_no_row(path: Path) -> None:
    store = store_at(path)
    await store.open(["models"])
    try:
        await store.put("kv", "k", json.dumps("v"))
        await store.delete("kv", "k")
        reader = store._reader
        assert reader is not None
        assert reader.connection.execute("SELECT COUNT(*) FROM records").fetchone() == (0,)
    finally:
        await store.close()


async def test_reading_does_not_wait_for_a_write_that_waits(path: Path) -> None:
    store = store_at(path, busy_timeout_s=3)
    await store.open()
    try:
        await store.put("kv", "k", "1")
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            async with anyio.create_task_group() as group:
                group.start_soon(store.put, "kv", "k", "2")
                await anyio.sleep(0.05)
                with anyio.fail_after(1):
                    found = await store.get("kv", "k")
                assert found is not None
                assert found.value == "1"
                other.execute("ROLLBACK")
        other.close()
    finally:
        await store.close()
