"""The default store: one sqlite file in WAL mode, shared by all workers on a machine; only its owner can read it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import ClassVar, TypeVar

import anyio
import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field

from llamastack.provider.descriptor_shortage import SHORTAGE, is_shortage
from llamastack.provider.errors import ServerBusyError, StoreUnavailableError
from llamastack.provider.private_files import make_private, private_file, private_folder
from llamastack.provider.store import TOMBSTONE_S, Changes, Record, check_record, check_swap
from llamastack.stack.stores.sqlite_schema import prepare

_T = TypeVar("_T")
_CLEAN_INTERVAL_S = 60.0
_MOST_REMOVED = 500
"""Expired records that one write removes."""

_FIELDS = "kind, key, value, version, expires_at"
_IS_THERE = "value IS NOT NULL AND (expires_at IS NULL OR expires_at > ?)"
_GET = f"SELECT {_FIELDS} FROM records WHERE kind = ? AND key = ? AND {_IS_THERE}"
_SCAN = f"SELECT {_FIELDS} FROM records WHERE kind = ? AND key > ? AND key >= ? AND {_IS_THERE} ORDER BY key LIMIT ?"
_CHANGES = f"SELECT {_FIELDS} FROM records WHERE kind = ? AND version > ? ORDER BY version"
_ALL = f"SELECT {_FIELDS} FROM records WHERE kind = ? AND {_IS_THERE} ORDER BY version"
_NEWEST = "SELECT COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'records'), 0), up_to FROM removed"
# The row of a changed record is a new one, so that AUTOINCREMENT gives it a version that was never used.
_PUT = "INSERT OR REPLACE INTO records (kind, key, value, expires_at) VALUES (?, ?, ?, ?)"
_REMOVE = "DELETE FROM records WHERE version = ?"
_EXPIRED = "SELECT version, kind FROM records WHERE expires_at <= ? LIMIT ?"

_CAUSES = {
    sqlite3.SQLITE_BUSY: "another process has kept it locked for longer than busy_timeout_s",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk is full or faulty",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: restore a copy, or remove it to begin with an empty one",
    sqlite3.SQLITE_NOTADB: "the file is damaged or not a store: restore a copy, or remove it",
    sqlite3.SQLITE_READONLY: "this process has no right to write the file and its folder",
    sqlite3.SQLITE_CANTOPEN: "this process has no right to open the file, or its folder is gone",
}


class SqliteStoreConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")

    path: Path | None = Field(None, description="The file; `registry.sqlite` in the stack's own folder by default")
    busy_timeout_s: float = Field(10.0, gt=0, description="Seconds to wait for another worker's write")


class _Lane:
    """A connection and the one thread at a time that may use it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.limiter = anyio.CapacityLimiter(1)


class SqliteStore:
    config_class = SqliteStoreConfig
    shared: ClassVar[bool] = True

    def __init__(self, config: SqliteStoreConfig, folder: Path | None) -> None:
        if config.path is None and folder is None:
            raise ValueError("the sqlite store needs 'path' where the stack has no folder of its own")
        self._path = config.path.expanduser() if config.path else Path(str(folder)) / "registry.sqlite"
        self._own_folder = config.path is None
        self._timeout = config.busy_timeout_s
        self._followed: frozenset[str] = frozenset()
        self._clean_at = 0.0
        # Two, so that nobody who reads waits for a write that waits for another process.
        self._reader: _Lane | None = None
        self._writer: _Lane | None = None

    # ---- life ----------------------------------------------------------------------------------------------------

    async def open(self, followed: Collection[str] = ()) -> None:
        """Raises OSError naming the file when it cannot be used."""
        self._followed = frozenset(followed)
        reader, writer = await anyio.to_thread.run_sync(self._connect)
        self._reader, self._writer = _Lane(reader), _Lane(writer)

    def _connect(self) -> tuple[sqlite3.Connection, sqlite3.Connection]:
        made: list[sqlite3.Connection] = []
        try:
            self._close_to_others()
            for _ in range(2):
                made.append(
                    sqlite3.connect(self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False)
                )
                made[-1].execute("PRAGMA synchronous=NORMAL")
            prepare(made[0], self._timeout)
        except (sqlite3.Error, OSError) as error:
            for connection in made:
                connection.close()
            raise OSError(f"the store {self._path} cannot be opened: {_cause(error)}") from error
        return made[0], made[1]

    def _close_to_others(self) -> None:
        # A folder that the config names may hold other things, too.
        private_folder(self._path.parent, tighten=self._own_folder)
        private_file(self._path)  # SQLite makes the files beside it with the same rights
        for ending in ("-wal", "-shm", "-journal"):
            make_private(self._path.with_name(self._path.name + ending))

    async def close(self) -> None:
        lanes, self._reader, self._writer = (self._reader, self._writer), None, None
        with anyio.CancelScope(shield=True):
            for lane in lanes:
                if lane is not None:
                    await anyio.to_thread.run_sync(lane.connection.close, limiter=lane.limiter)

    async def _run(self, lane: _Lane | None, work: Callable[[sqlite3.Connection], _T]) -> _T:
        if lane is None:
            raise RuntimeError("the store is not open")
        try:
            return await anyio.to_thread.run_sync(work, lane.connection, limiter=lane.limiter)
        except sqlite3.Error as error:
            if is_shortage(error):
                raise ServerBusyError(f"{SHORTAGE}, so the store {self._path} cannot be used") from error
            raise StoreUnavailableError(f"the store {self._path} cannot be used: {_cause(error)}") from error

    # ---- reading -------------------------------------------------------------------------------------------------

    async def get(self, kind: str, key: str) -> Record | None:
        return await self._run(self._reader, lambda connection: _get(connection, kind, key))

    async def scan(self, kind: str, *, prefix: str = "", after: str = "", limit: int) -> list[Record]:
        values = (kind, after, prefix, time.time(), limit)

        def read(connection: sqlite3.Connection) -> list[Record]:
            records = map(Record._make, connection.execute(_SCAN, values))
            return list(takewhile(lambda record: record.key.startswith(prefix), records))

        return await self._run(self._reader, read)

    async def changes_since(self, version: int, kinds: Collection[str]) -> Changes:
        def read(connection: sqlite3.Connection) -> Changes:
            with _transaction(connection, "BEGIN"):
                newest, removed_up_to = connection.execute(_NEWEST).fetchone()
                # A number above the newest was read from another file, which stood in this one's place.
                complete = version == 0 or version < removed_up_to or version > newest
                records: list[Record] = []
                for kind in set(kinds):
                    values = (kind, time.time() if complete else version)
                    rows = connection.execute(_ALL if complete else _CHANGES, values).fetchall()
                    records += map(Record._make, rows)
            if len(kinds) > 1:
                records.sort(key=lambda record: record.version)
            return Changes(newest, records, complete)

        return await self._run(self._reader, read)

    # ---- writing -------------------------------------------------------------------------------------------------

    async def put(self, kind: str, key: str, value: str, *, expires_at: float | None = None) -> Record:
        check_record(key, value)
        return await self._write(lambda connection: _put(connection, kind, key, value, expires_at))

    async def swap(
        self, kind: str, key: str, value: str | None, *, version: int | None, expires_at: float | None = None
    ) -> Record | None:
        check_swap(value, version)
        check_record(key, value)

        def write(connection: sqlite3.Connection) -> Record | None:
            known = _get(connection, kind, key)
            if (None if known is None else known.version) != version:
                return None
            if value is None:
                return self._forget(connection, kind, key)
            return _put(connection, kind, key, value, expires_at)

        return await self._write(write)

    async def delete(self, kind: str, key: str) -> bool:
        def write(connection: sqlite3.Connection) -> bool:
            there = _get(connection, kind, key) is not None
            if there:
                self._forget(connection, kind, key)
            return there

        return await self._write(write)

    async def _write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        def write(connection: sqlite3.Connection) -> _T:
            with _transaction(connection, "BEGIN IMMEDIATE"):
                self._clean(connection)
                return work(connection)

        return await self._run(self._writer, write)

    def _forget(self, connection: sqlite3.Connection, kind: str, key: str) -> Record:
        tombstone = _put(connection, kind, key, None, time.time() + TOMBSTONE_S)
        if kind not in self._followed:
            connection.execute(_REMOVE, (tombstone.version,))
        return tombstone

    def _clean(self, connection: sqlite3.Connection) -> None:
        """Remove some of what has expired; once a minute, and at each write as long as there is more."""
        now = time.time()
        if now < self._clean_at:
            return
        expired = connection.execute(_EXPIRED, (now, _MOST_REMOVED)).fetchall()
        connection.executemany(_REMOVE, ((version,) for version, _ in expired))
        followed = [version for version, kind in expired if kind in self._followed]
        if followed:
            connection.execute("UPDATE removed SET up_to = MAX(up_to, ?)", (max(followed),))
        if len(expired) < _MOST_REMOVED:
            self._clean_at = now + _CLEAN_INTERVAL_S


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # after some errors SQLite has rolled back by itself
            connection.execute("ROLLBACK")
        raise


def _get(connection: sqlite3.Connection, kind: str, key: str) -> Record | None:
    row = connection.execute(_GET, (kind, key, time.time())).fetchone()
    return None if row is None else Record._make(row)


def _put(connection: sqlite3.Connection, kind: str, key: str, value: str | None, expires_at: float | None) -> Record:
    version = connection.execute(_PUT, (kind, key, value, expires_at)).lastrowid or 0
    return Record(kind, key, value, version, expires_at)


def _cause(error: Exception) -> str:
    """What is wrong, for people, with what they can do."""
    if is_shortage(error):
        return SHORTAGE
    cause = _CAUSES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    return f"{error} ({cause})" if cause else str(error)
