"""The default store: one sqlite file in WAL mode, shared by all workers on a machine; only its owner can read it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, TypeVar

import anyio
import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field

from llamastack.provider.descriptor_shortage import SHORTAGE, is_shortage
from llamastack.provider.errors import ProviderUnavailableError, ServerBusyError
from llamastack.provider.private_files import make_private, private_file, private_folder
from llamastack.stack.stores import StoredObject

_T = TypeVar("_T")

# `sequence` grows with every change; a deleted row stays as a tombstone so that other workers learn of it.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    kind TEXT NOT NULL,
    identifier TEXT NOT NULL,
    provider_id TEXT NOT NULL,
    body TEXT,
    sequence INTEGER NOT NULL UNIQUE,
    PRIMARY KEY (kind, identifier)
)
"""
# Numbers begin with 2: a reader of an empty store has seen up to 1, so it later sees deletions, too.
_EMPTY = 1
_NEXT = f"(SELECT COALESCE(MAX(sequence), {_EMPTY}) + 1 FROM objects)"
_PUT = f"""
INSERT INTO objects (kind, identifier, provider_id, body, sequence) VALUES (?, ?, ?, ?, {_NEXT})
ON CONFLICT (kind, identifier) DO UPDATE
SET provider_id = excluded.provider_id, body = excluded.body, sequence = excluded.sequence
WHERE objects.body IS NULL OR ?
"""
_DELETE = f"UPDATE objects SET body = NULL, sequence = {_NEXT} WHERE kind = ? AND identifier = ? AND body IS NOT NULL"
_CHANGES = "SELECT kind, identifier, provider_id, body, sequence FROM objects WHERE sequence > ? ORDER BY sequence"


class SqliteStoreConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")

    path: Path | None = Field(None, description="The file; `registry.sqlite` in the stack's own folder by default")
    busy_timeout_s: float = Field(10.0, gt=0, description="Seconds to wait for another worker's write")


class SqliteStore:
    config_class = SqliteStoreConfig
    shared: ClassVar[bool] = True

    def __init__(self, config: SqliteStoreConfig, folder: Path | None) -> None:
        if config.path is None and folder is None:
            raise ValueError("the sqlite store needs 'path' where the stack has no folder of its own")
        self._path = config.path.expanduser() if config.path else Path(str(folder)) / "registry.sqlite"
        self._own_folder = config.path is None
        self._timeout = config.busy_timeout_s
        self._limiter = anyio.CapacityLimiter(1)
        self._connection: sqlite3.Connection | None = None

    def _close_to_others(self) -> None:
        # A folder that the config names may hold other things, too.
        private_folder(self._path.parent, tighten=self._own_folder)
        private_file(self._path)  # SQLite makes the files beside it with the same rights
        for ending in ("-wal", "-shm", "-journal"):
            make_private(self._path.with_name(self._path.name + ending))

    async def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        connection = self._connection
        if connection is None:
            raise RuntimeError("the store is not open")
        try:
            return await anyio.to_thread.run_sync(work, connection, limiter=self._limiter)
        except sqlite3.Error as error:
            if is_shortage(error):
                raise ServerBusyError(f"{SHORTAGE}, so the registry {self._path} cannot be used") from error
            raise ProviderUnavailableError(f"the registry {self._path} cannot be used: {error}") from error

    async def open(self) -> None:
        """Raises OSError naming the file when it cannot be used."""

        def connect() -> sqlite3.Connection:
            made: sqlite3.Connection | None = None
            try:
                if str(self._path) != ":memory:":
                    self._close_to_others()
                made = sqlite3.connect(self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False)
                made.execute("PRAGMA journal_mode=WAL")
                made.execute("PRAGMA synchronous=NORMAL")
                made.execute(_SCHEMA)
            except (sqlite3.Error, OSError) as error:
                if made is not None:
                    made.close()
                why = SHORTAGE if is_shortage(error) else error
                raise OSError(f"the registry {self._path} cannot be opened: {why}") from error
            return made

        self._connection = await anyio.to_thread.run_sync(connect, limiter=self._limiter)

    async def changes_since(self, sequence: int) -> tuple[int, list[StoredObject]]:
        def read(connection: sqlite3.Connection) -> tuple[int, list[StoredObject]]:
            rows = connection.execute(_CHANGES, (sequence,)).fetchall()
            newest = rows[-1][4] if rows else max(sequence, _EMPTY)
            return newest, [
                StoredObject(kind, identifier, provider_id, body)
                for kind, identifier, provider_id, body, _ in rows
                if body is not None or sequence > 0
            ]

        return await self._run(read)

    async def put(self, item: StoredObject, *, replace: bool = False) -> bool:
        row = (item.kind, item.identifier, item.provider_id, item.body, replace)
        return await self._run(lambda connection: connection.execute(_PUT, row).rowcount > 0)

    async def delete(self, kind: str, identifier: str) -> bool:
        return await self._run(lambda connection: connection.execute(_DELETE, (kind, identifier)).rowcount > 0)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(connection.close, limiter=self._limiter)
