"""A store in the memory of one process: for stacks that keep nothing, and for tests of providers without a stack."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator
from heapq import nsmallest
from typing import ClassVar

from llamastack.provider.store import TOMBSTONE_S, Changes, Record, check_record, check_swap

_CLEAN_INTERVAL_S = 60.0


class MemoryStore:
    """A store that forgets everything when the process ends. Use it from one event loop."""

    shared: ClassVar[bool] = False

    def __init__(self) -> None:
        # By kind and key. The records of a kind are in the order of their versions: what changes moves to the end.
        self._kinds: dict[str, dict[str, Record]] = {}
        self._followed: frozenset[str] = frozenset()
        self._version = 0
        self._removed_up_to = 0
        self._clean_at = math.inf

    async def open(self, followed: Collection[str] = ()) -> None:
        self._followed = frozenset(followed)

    async def get(self, kind: str, key: str) -> Record | None:
        record = self._kinds.get(kind, {}).get(key)
        return record if record is not None and _is_there(record, time.time()) else None

    async def put(self, kind: str, key: str, value: str, *, expires_at: float | None = None) -> Record:
        check_record(key, value)
        return self._keep(kind, key, value, expires_at)

    async def swap(
        self, kind: str, key: str, value: str | None, *, version: int | None, expires_at: float | None = None
    ) -> Record | None:
        check_swap(value, version)
        check_record(key, value)
        known = await self.get(kind, key)
        if (None if known is None else known.version) != version:
            return None
        return self._forget(kind, key) if value is None else self._keep(kind, key, value, expires_at)

    async def delete(self, kind: str, key: str) -> bool:
        if await self.get(kind, key) is None:
            return False
        self._forget(kind, key)
        return True

    async def scan(self, kind: str, *, prefix: str = "", after: str = "", limit: int) -> list[Record]:
        now = time.time()
        found = (
            record
            for key, record in self._kinds.get(kind, {}).items()
            if key > after and key.startswith(prefix) and _is_there(record, now)
        )
        return nsmallest(limit, found, key=lambda record: record.key)

    async def changes_since(self, version: int, kinds: Collection[str]) -> Changes:
        complete = version == 0 or version < self._removed_up_to
        now, oldest = time.time(), 0 if complete else version
        changed = sorted(
            (record for kind in set(kinds) for record in self._changed(kind, oldest)),
            key=lambda record: record.version,
        )
        records = [record for record in changed if _is_there(record, now)] if complete else changed
        return Changes(self._version, records, complete)

    async def close(self) -> None:
        """Nothing to do: a stack that starts again finds what it kept."""

    def _changed(self, kind: str, version: int) -> Iterator[Record]:
        for record in reversed(self._kinds.get(kind, {}).values()):
            if record.version <= version:
                break
            yield record

    def _keep(self, kind: str, key: str, value: str | None, expires_at: float | None) -> Record:
        self._clean()
        self._version += 1
        records = self._kinds.setdefault(kind, {})
        records.pop(key, None)
        record = records[key] = Record(kind, key, value, self._version, expires_at)
        return record

    def _forget(self, kind: str, key: str) -> Record:
        tombstone = self._keep(kind, key, None, time.time() + TOMBSTONE_S)
        if kind not in self._followed:
            del self._kinds[kind][key]
        return tombstone

    def _clean(self) -> None:
        """Remove what has expired, once a minute."""
        now = time.time()
        if now < self._clean_at < math.inf:
            return
        self._clean_at = now + _CLEAN_INTERVAL_S
        for kind, records in self._kinds.items():
            for record in [record for record in records.values() if _is_over(record, now)]:
                del records[record.key]
                if kind in self._followed:
                    self._removed_up_to = max(self._removed_up_to, record.version)


def _is_over(record: Record, now: float) -> bool:
    return record.expires_at is not None and record.expires_at <= now


def _is_there(record: Record, now: float) -> bool:
    return record.value is not None and not _is_over(record, now)
