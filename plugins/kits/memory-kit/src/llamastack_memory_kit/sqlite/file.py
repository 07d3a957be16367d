"""One SQLite file, of which many processes may read and write: its connections, threads, transactions and errors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
import apsw
from apsw import Connection

from llamastack.provider import BackendError, LlamaStackError, ProviderUnavailableError

_T = TypeVar("_T")
_READERS = 4
_BUSY_MS = 10_000
_SETTINGS = ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "temp_store = MEMORY")
_UNREADABLE = (apsw.CorruptError, apsw.NotADBError, apsw.FormatError)
_OTHER_VERSION = "was written by another version of this provider ({found}; this one reads {wanted}): {path}"


class SqliteFile:
    """A file and its connections. Calls run in threads: one writes, four read.

    Readers never wait for the writer, nor for other processes (write-ahead log).
    """

    def __init__(
        self,
        path: Path,
        provider_id: str,
        *,
        kind: int,
        schema: str,
        version: int,
        load: Callable[[Connection], None] | None = None,
    ) -> None:
        """What the file is; `open` opens it.

        path: where it is. kind: the `application_id` of files with this schema, which no other provider uses.
        schema: SQL that makes the tables of a new file. version: of the schema. load: prepares each connection.
        """
        self.path: Path = path
        """Where it is."""
        self._provider_id = provider_id
        self._kind = kind
        self._schema = schema
        self._version = version
        self._load = load
        self._writer: Connection | None = None
        self._readers: list[Connection] = []
        self._writing = anyio.Lock()
        self._reading = anyio.CapacityLimiter(_READERS)

    async def open(self) -> None:
        """Open the file, or make it; may be repeated. Raises ProviderUnavailableError or BackendError."""
        if self._writer is None:
            self._writer = await anyio.to_thread.run_sync(self._guarded, self._first)

    async def close(self) -> None:
        """Close all connections, after the calls that run; safe to call twice, and without `open`."""
        places = [object() for _ in range(_READERS)]
        with anyio.CancelScope(shield=True):
            async with self._writing:
                for place in places:
                    await self._reading.acquire_on_behalf_of(place)
                try:
                    connections = [*self._readers, *([self._writer] if self._writer else [])]
                    self._readers, self._writer = [], None
                    for each in connections:
                        await anyio.to_thread.run_sync(each.close)
                finally:
                    for place in places:
                        self._reading.release_on_behalf_of(place)

    async def read(self, work: Callable[[Connection], _T]) -> _T:
        """What `work` reads, in a thread, of one state of the file."""

        def run() -> _T:
            connection = self._readers.pop() if self._readers else self._connection()
            try:
                with _transaction(connection, "DEFERRED"):
                    return work(connection)
            finally:
                self._readers.append(connection)

        async with self._reading:
            self._started()
            return await anyio.to_thread.run_sync(self._guarded, run)

    async def write(self, work: Callable[[Connection], _T]) -> _T:
        """What `work` returns after its changes, in a thread and one transaction: all of them are kept, or none.

        A call that is cancelled waits for the end of its transaction.
        """
        async with self._writing:
            writer = self._started()

            def run() -> _T:
                with _transaction(writer, "IMMEDIATE"):
                    return work(writer)

            return await anyio.to_thread.run_sync(self._guarded, run)

    def _started(self) -> Connection:
        if self._writer is None:
            raise ProviderUnavailableError("the provider is not started", provider_id=self._provider_id)
        return self._writer

    def _first(self) -> Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # SQLite would make the file readable for others. It gives its log the rights of the file.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = self._connection()
        try:
            with _transaction(connection, "IMMEDIATE"):
                self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: Connection) -> None:
        if self._is_new(connection):
            connection.execute(self._schema)
            connection.pragma("application_id", self._kind)
            connection.pragma("user_version", self._version)

    def _is_new(self, connection: Connection) -> bool:
        """Whether nothing is in the file yet. Raises BackendError if there is something of another kind."""
        found, version = (connection.pragma(name) for name in ("application_id", "user_version"))
        if not found and not connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall():
            return True
        if found != self._kind:
            raise BackendError(f"the file belongs to another program: {self.path}", provider_id=self._provider_id)
        if version != self._version:
            text = _OTHER_VERSION.format(found=version, wanted=self._version, path=self.path)
            raise BackendError(f"the file {text}", provider_id=self._provider_id)
        return False

    def _connection(self) -> Connection:
        connection = Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.set_busy_timeout(_BUSY_MS)
            self._is_new(connection)  # before the settings, which change the file of another program
            for setting in _SETTINGS:
                connection.execute(f"PRAGMA {setting}")
            if self._load is not None:
                self._load(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _guarded(self, run: Callable[[], _T]) -> _T:
        try:
            return run()
        except LlamaStackError:
            raise
        except _UNREADABLE as error:
            raise BackendError(f"{self.path} is damaged: {error}", provider_id=self._provider_id) from error
        except (apsw.Error, OSError) as error:
            raise ProviderUnavailableError(f"{self.path}: {error}", provider_id=self._provider_id) from error


@contextmanager
def _transaction(connection: Connection, kind: str) -> Iterator[None]:
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
