"""Stores that are each broken in one way where several processes, faults of the disk or many calls are concerned."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import anyio
from broken_stores import broken

from llamastack.provider.errors import StoreUnavailableError
from llamastack.provider.store import Changes, Record
from llamastack.stack.stores.memory import MemoryStore
from llamastack.stack.stores.sqlite import SqliteStore, SqliteStoreConfig

# ---- processes and faults --------------------------------------------------------------------------------------------


@broken("processes.no-lost-update")
class ComparesBeforeItWrites(SqliteStore):
    async def swap(self, kind: str, key: str, value: str | None, *, version: int | None, **named: Any) -> Record | None:
        known = await self.get(kind, key)
        if (known.version if known else None) != version or value is None:
            return None
        return await self.put(kind, key, value, **named)


@broken("processes.killed")
class WritesInTwoParts(SqliteStore):
    async def put(self, kind: str, key: str, value: str, **named: Any) -> Record:
        await super().put(kind, key, value[: len(value) // 2], **named)
        await anyio.sleep(0.005)
        return await super().put(kind, key, value, **named)


@broken("processes.killed")
class WritesLater(SqliteStore):
    """Writes wait until there are a few."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._waiting: list[tuple[str, str, str]] = []

    async def put(self, kind: str, key: str, value: str, **named: Any) -> Record:
        self._waiting.append((kind, key, value))
        if len(self._waiting) > 5:
            await super().put(*self._waiting.pop(0))
        newest = (await self.changes_since(0, [kind])).version
        return Record(kind, key, value, newest + 1)


@broken("faults.full-disk")
class SwallowsTheFullDisk(SqliteStore):
    async def put(self, kind: str, key: str, value: str, **named: Any) -> Record:
        try:
            return await super().put(kind, key, value, **named)
        except StoreUnavailableError:
            return Record(kind, key, value, 1)


@broken("faults.full-disk")
class DeletesBeforeItWrites(SqliteStore):
    async def put(self, kind: str, key: str, value: str, **named: Any) -> Record:
        await self.delete(kind, key)
        return await super().put(kind, key, value, **named)


class _OtherErrors(SqliteStore):
    def other(self, error: StoreUnavailableError) -> Exception:
        raise NotImplementedError

    async def _run(self, *arguments: Any) -> Any:
        try:
            return await super()._run(*arguments)
        except StoreUnavailableError as error:
            raise self.other(error) from error


@broken("faults.full-disk")
@broken("faults.locked")
class RaisesErrorsOfTheLibrary(_OtherErrors):
    def other(self, error: StoreUnavailableError) -> Exception:
        return sqlite3.OperationalError(error.message)


@broken("faults.full-disk")
@broken("faults.locked")
class SaysNotWhere(_OtherErrors):
    def other(self, error: StoreUnavailableError) -> Exception:
        return StoreUnavailableError("the store cannot be used: the disk is full")


@broken("faults.full-disk")
@broken("faults.locked")
class SaysNotWhy(_OtherErrors):
    def other(self, error: StoreUnavailableError) -> Exception:
        return StoreUnavailableError(str(self._path))


@broken("faults.locked")
class SwallowsTheLock(SqliteStore):
    async def put(self, kind: str, key: str, value: str, **named: Any) -> Record:
        try:
            return await super().put(kind, key, value, **named)
        except StoreUnavailableError:
            return Record(kind, key, value, 1)


@broken("faults.locked")
class WaitsForEver(SqliteStore):
    def __init__(self, config: SqliteStoreConfig, folder: Path | None) -> None:
        super().__init__(config.model_copy(update={"busy_timeout_s": 4.0}), folder)


class _OtherOpenErrors(SqliteStore):
    async def open(self, followed: Collection[str] = ()) -> None:
        try:
            await super().open(followed)
        except OSError:
            raise self.other() from None

    def other(self) -> Exception:
        raise NotImplementedError


@broken("open.locked")
@broken("open.no-folder")
class OpensWithAnotherError(_OtherOpenErrors):
    def other(self) -> Exception:
        return RuntimeError(f"{self._path} cannot be opened")


@broken("open.locked")
@broken("open.no-folder")
class OpensWithoutSayingWhat(_OtherOpenErrors):
    def other(self) -> Exception:
        return OSError("the store cannot be opened")


@broken("open.no-folder")
class WaitsWithItsFolder(SqliteStore):
    async def open(self, followed: Collection[str] = ()) -> None:
        if not self._path.parent.parent.is_file():
            await super().open(followed)


@broken("files.private")
class TrustsTheUmask(SqliteStore):
    def _close_to_others(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self._path, os.O_CREAT, 0o666))


@broken("files.private")
class LeavesOldRights(SqliteStore):
    def _close_to_others(self) -> None:
        if not self._path.exists():
            super()._close_to_others()


# ---- stress ----------------------------------------------------------------------------------------------------------


@broken("loop.many-records")
class ReadsInTheLoop(SqliteStore):
    async def changes_since(self, version: int, kinds: Collection[str]) -> Changes:
        with sqlite3.connect(self._path) as own:
            names = ", ".join(f"'{kind}'" for kind in kinds)
            rows = own.execute(
                "SELECT kind, key, value, version, expires_at FROM records "
                f"WHERE kind IN ({names}) AND version > ? ORDER BY lower(value), version",
                (version,),
            ).fetchall()
        own.close()
        records = sorted((Record(*row) for row in rows), key=lambda record: record.version)
        return Changes(max((record.version for record in records), default=version), records, version == 0)


@broken("loop.many-calls")
class SleepsInTheLoop(MemoryStore):
    async def put(self, kind: str, key: str, value: str, **named: Any) -> Record:
        if key == "7":
            time.sleep(0.3)
        return await super().put(kind, key, value, **named)


@broken("loop.many-calls")
class LosesWhatIsDoneAtOnce(MemoryStore):
    async def swap(self, kind: str, key: str, value: str | None, *, version: int | None, **named: Any) -> Record | None:
        known = await self.get(kind, key)
        await asyncio.sleep(0)
        if (known.version if known else None) != version or value is None:
            return None
        return await self.put(kind, key, value, **named)


@broken("calls.cancelled")
class IsCancelledInTheMiddle(MemoryStore):
    async def put(self, kind: str, key: str, value: str, **named: Any) -> Record:
        await super().put(kind, key, "half", **named)
        await asyncio.sleep(0.001)
        return await super().put(kind, key, value, **named)


@broken("calls.cancelled")
class KeepsTheLockWhenCancelled(MemoryStore):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._lock = asyncio.Lock()

    async def put(self, kind: str, key: str, value: str, **named: Any) -> Record:
        await self._lock.acquire()
        await asyncio.sleep(0.001)
        self._lock.release()
        return await super().put(kind, key, value, **named)
