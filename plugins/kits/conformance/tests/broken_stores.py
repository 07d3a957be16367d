"""Stores that are each broken in one way that one check is there to find."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel

from llamastack.provider.store import Changes, Record
from llamastack.stack.stores.memory import MemoryStore, MemoryStoreConfig
from llamastack.stack.stores.sqlite import SqliteStore

_Class = TypeVar("_Class", bound=type)


@dataclass(frozen=True)
class BrokenStore:
    """check_id: the check that has to find it."""

    check_id: str
    store_class: type


BROKEN: list[BrokenStore] = []


def broken(check_id: str) -> Callable[[_Class], _Class]:
    def register(cls: _Class) -> _Class:
        BROKEN.append(BrokenStore(check_id, cls))
        return cls

    return register


# ---- the class -------------------------------------------------------------------------------------------------------


@broken("store.methods")
class HasNoScan(MemoryStore):
    scan: ClassVar[None] = None  # type: ignore[assignment]


@broken("store.methods")
class IsNotAsync(MemoryStore):
    def get(self, kind: str, key: str) -> Any:
        return super().get(kind, key)


@broken("store.methods")
class TakesNoExpiry(MemoryStore):
    async def put(self, kind: str, key: str, value: str) -> Record:  # type: ignore[override]
        return await super().put(kind, key, value)


class _Loose(BaseModel):
    """It takes any key."""


class _Silent(MemoryStoreConfig):
    seconds: float = 1


@broken("store.config")
class TakesAnyKey(MemoryStore):
    config_class = _Loose  # type: ignore[assignment]


@broken("store.config")
class DescribesNothing(MemoryStore):
    config_class = _Silent


# ---- records ---------------------------------------------------------------------------------------------------------


@broken("records.as-a-dict")
class SaysThatItDeleted(MemoryStore):
    async def delete(self, kind: str, key: str) -> bool:
        await super().delete(kind, key)
        return True


@broken("records.as-a-dict")
class SwapKeepsTheExpiry(SqliteStore):
    async def swap(self, kind: str, key: str, value: str | None, **named: Any) -> Record | None:
        known = await self.get(kind, key)
        if known is not None:
            named["expires_at"] = known.expires_at
        return await super().swap(kind, key, value, **named)


@broken("records.as-a-dict")
class PutMovesNothingToTheEnd(MemoryStore):
    """A changed record keeps its place, so that whoever asks for changes does not see it."""

    def _keep(self, kind: str, key: str, value: str | None, expires_at: float | None) -> Record:
        before = dict(self._kinds.get(kind, {}))
        record = super()._keep(kind, key, value, expires_at)
        if key in before:
            self._kinds[kind] = {**before, key: record}
        return record


@broken("records.keys")
class IgnoresCase(MemoryStore):
    async def put(self, kind: str, key: str, value: str, **named: Any) -> Record:
        return (await super().put(kind, key.lower(), value, **named))._replace(key=key)

    async def get(self, kind: str, key: str) -> Record | None:
        return await super().get(kind, key.lower())


@broken("records.keys")
class ReadsPrefixesAsPatterns(SqliteStore):
    async def scan(self, kind: str, *, prefix: str = "", after: str = "", limit: int) -> list[Record]:
        def like(connection: sqlite3.Connection) -> list[Record]:
            rows = connection.execute(
                "SELECT kind, key, value, version, expires_at FROM records WHERE kind = ? AND key LIKE ? AND key > ? "
                "AND value IS NOT NULL ORDER BY key LIMIT ?",
                (kind, f"{prefix}%", after, limit),
            )
            return [Record(*row) for row in rows]

        return await self._run(self._reader, like)


@broken("records.keys")
class OrdersAsJavaDoes(MemoryStore):
    async def scan(self, kind: str, *, prefix: str = "", after: str = "", limit: int) -> list[Record]:
        found = await super().scan(kind, prefix=prefix, after=after, limit=10_000)
        return sorted(found, key=lambda record: record.key.encode("utf-16-be"))[:limit]


@broken("records.impossible")
class WritesAnything(SqliteStore):
    async def put(self, kind: str, key: str, value: str, **named: Any) -> Record:
        return await super().put(kind, key.encode(errors="replace").decode() or "?", value, **named)


@broken("records.values")
class CutsAtNul(MemoryStore):
    async def put(self, kind: str, key: str, value: str, **named: Any) -> Record:
        return await super().put(kind, key, value.partition("\0")[0], **named)


@broken("records.values")
class HasRoomForAMegabyte(MemoryStore):
    async def put(self, kind: str, key: str, value: str, **named: Any) -> Record:
        kept = await super().put(kind, key, value[: 1024 * 1024], **named)
        return kept._replace(value=value)


@broken("records.kinds")
class HasOneKind(MemoryStore):
    async def put(self, kind: str, key: str, value: str, **named: Any) -> Record:
        return (await super().put("any", key, value, **named))._replace(kind=kind)

    async def get(self, kind: str, key: str) -> Record | None:
        found = await super().get("any", key)
        return None if found is None else found._replace(kind=kind)


@broken("versions.grow")
class UsesVersionsAgain(MemoryStore):
    def _keep(self, kind: str, key: str, value: str | None, expires_at: float | None) -> Record:
        records = [record for each in self._kinds.values() for record in each.values()]
        self._version = max((record.version for record in records), default=0)
        return super()._keep(kind, key, value, expires_at)


@broken("swap.compares")
class IgnoresTheVersion(SqliteStore):
    async def swap(self, kind: str, key: str, value: str | None, *, version: int | None, **named: Any) -> Record | None:
        known = await self.get(kind, key)
        return await super().swap(kind, key, value, version=known.version if known else None, **named)


@broken("swap.compares")
class AddsWhatIsThere(MemoryStore):
    async def swap(self, kind: str, key: str, value: str | None, *, version: int | None, **named: Any) -> Record | None:
        if version is None and value is not None:
            return await self.put(kind, key, value)
        return await super().swap(kind, key, value, version=version, **named)


@broken("scan.pages")
class BeginsWithTheLast(MemoryStore):
    async def scan(self, kind: str, *, prefix: str = "", after: str = "", limit: int) -> list[Record]:
        found = await super().scan(kind, prefix=prefix, limit=10_000)
        return [record for record in found if record.key >= after][:limit] if after < "6-99" else []


@broken("scan.pages")
class ScansInAnyOrder(MemoryStore):
    async def scan(self, kind: str, *, prefix: str = "", after: str = "", limit: int) -> list[Record]:
        found = await super().scan(kind, prefix=prefix, after=after, limit=limit)
        return sorted(found, key=lambda record: record.version)


@broken("expiry.over")
class ShowsWhatIsOver(MemoryStore):
    async def get(self, kind: str, key: str) -> Record | None:
        return self._kinds.get(kind, {}).get(key)


@broken("expiry.over")
class ScansWhatIsOver(SqliteStore):
    async def scan(self, kind: str, *, prefix: str = "", after: str = "", limit: int) -> list[Record]:
        def scan(connection: sqlite3.Connection) -> list[Record]:
            rows = connection.execute(
                "SELECT kind, key, value, version, expires_at FROM records WHERE kind = ? ORDER BY key", (kind,)
            )
            return [Record(*row) for row in rows]

        return await self._run(self._reader, scan)


@broken("expiry.over")
class TellsOfWhatIsOver(MemoryStore):
    async def changes_since(self, version: int, kinds: Collection[str]) -> Changes:
        found = [record for kind in kinds for record in self._changed(kind, version) if record.value is not None]
        return Changes(self._version, sorted(found, key=lambda record: record.version), version == 0)


# ---- changes ---------------------------------------------------------------------------------------------------------


@broken("changes.since")
class TellsTheNewestFirst(MemoryStore):
    async def changes_since(self, version: int, kinds: Collection[str]) -> Changes:
        changes = await super().changes_since(version, kinds)
        return changes._replace(records=changes.records[::-1])


@broken("changes.since")
class TellsOfEveryKind(MemoryStore):
    async def changes_since(self, version: int, kinds: Collection[str]) -> Changes:
        return await super().changes_since(version, list(self._kinds))


@broken("changes.since")
class NeverTellsAll(MemoryStore):
    async def changes_since(self, version: int, kinds: Collection[str]) -> Changes:
        return (await super().changes_since(version, kinds))._replace(complete=False)


@broken("changes.deleted")
class RemembersNothingDeleted(SqliteStore):
    async def open(self, followed: Collection[str] = ()) -> None:
        await super().open()


@broken("changes.deleted")
class RemembersTheLastHundred(MemoryStore):
    """It makes room for a hundred changes, whatever they are of."""

    def _keep(self, kind: str, key: str, value: str | None, expires_at: float | None) -> Record:
        record = super()._keep(kind, key, value, expires_at)
        for records in self._kinds.values():
            for old in [r for r in records.values() if r.value is None and r.version < record.version - 100]:
                del records[old.key]
        return record


@broken("shared.at-once")
class RemembersWhatItRead(SqliteStore):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._known: dict[tuple[str, str], Record] = {}

    async def put(self, kind: str, key: str, value: str, **named: Any) -> Record:
        self._known[kind, key] = await super().put(kind, key, value, **named)
        return self._known[kind, key]

    async def get(self, kind: str, key: str) -> Record | None:
        return self._known.get((kind, key)) or await super().get(kind, key)


@broken("reopened.keeps")
class CountsFromOneAgain(SqliteStore):
    async def close(self) -> None:
        if self._writer is not None:
            self._writer.connection.execute("UPDATE records SET version = version - 2 WHERE value IS NOT NULL")
            self._writer.connection.execute("UPDATE sqlite_sequence SET seq = 0")
        await super().close()


@broken("reopened.keeps")
class BeginsEmpty(SqliteStore):
    async def open(self, followed: Collection[str] = ()) -> None:
        self._path.unlink(missing_ok=True)
        await super().open(followed)


@broken("life.close-twice")
class ClosesOnce(SqliteStore):
    async def close(self) -> None:
        if self._reader is None:
            raise RuntimeError("it is closed")
        await super().close()
