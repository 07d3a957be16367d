"""A store beside a dict: the same steps with both, chosen at random from a fixed seed, and the same results."""

from __future__ import annotations

import random
import time
from collections import deque

from llamastack.provider.store import Record, Store
from llamastack_conformance.checks import CheckFailure
from llamastack_conformance.suites.store_suite import expect, now_later, shown

_KEYS = ("a", "ab", "a_", "b", "ü", "z")
_PREFIXES = ("", "a", "a_", "ü", "none")
_LATER_S = 3600.0
_REMEMBERED = 10


class StoreBesideDict:
    """A store and what has to be in it. followed, other: two kinds of records, of which the first is followed."""

    def __init__(self, store: Store, followed: str, other: str, seed: int) -> None:
        self._store, self._kinds = store, (followed, other)
        self._random = random.Random(seed)  # noqa: S311 - the same steps in every run
        self._wanted: dict[tuple[str, str], Record] = {}
        self._newest = 0
        self._seen: dict[str, Record] = {}
        self._seen_up_to = 0
        self._steps: deque[str] = deque(maxlen=_REMEMBERED)

    async def run(self, steps: int) -> None:
        """Do so many steps. Raises CheckFailure with the last of them."""
        ways = (self._put, self._put, self._swap, self._swap, self._delete, self._scan, self._follow)
        try:
            for _ in range(steps):
                kind, key = self._random.choice(self._kinds), self._random.choice(_KEYS)
                await self._random.choice(ways)(kind, key)
                expect(self._step(f"get({key!r})"), await self._store.get(kind, key), self._there(kind, key))
            for kind in self._kinds:
                for key in _KEYS:
                    expect(f"get({key!r})", await self._store.get(kind, key), self._there(kind, key))
        except CheckFailure as failure:
            raise CheckFailure(f"{failure.got}\nafter: {'; '.join(self._steps)}") from None

    def _step(self, text: str) -> str:
        self._steps.append(text)
        return text

    def _there(self, kind: str, key: str) -> Record | None:
        """The record that has to be there. A record that was over when it was put is not."""
        record = self._wanted.get((kind, key))
        return None if record is None or (record.expires_at or time.time() + 1) <= time.time() else record

    def _expiry(self) -> float | None:
        return self._random.choice((None, None, time.time() + _LATER_S, time.time() - 10))

    def _keep(self, kept: Record | None, what: str, wanted: tuple[object, ...]) -> None:
        record = now_later(kept, self._newest, what)
        kind, key, value, expires_at = wanted
        expect(what, record, Record(str(kind), str(key), value, record.version, expires_at))  # type: ignore[arg-type]
        self._newest = record.version
        self._wanted[record.kind, record.key] = record

    async def _put(self, kind: str, key: str) -> None:
        value, expires_at = self._random.choice("xyz") * 3, self._expiry()
        what = self._step(f"put({key!r}, {value!r}, expires_at={expires_at})")
        self._keep(await self._store.put(kind, key, value, expires_at=expires_at), what, (kind, key, value, expires_at))

    async def _swap(self, kind: str, key: str) -> None:
        there = self._there(kind, key)
        right = None if there is None else there.version
        wrong = self._random.choice((None, 1, self._newest + 1)) if right is not None else max(1, self._newest)
        version = self._random.choice((right, right, wrong))
        value = self._random.choice(("v", "w", None)) if version is not None else "added"
        expires_at = None if value is None else self._expiry()
        what = self._step(f"swap({key!r}, {value!r}, version={version}) of {shown(there)}")
        kept = await self._store.swap(kind, key, value, version=version, expires_at=expires_at)
        if version != right:
            expect(what, kept, None)
        elif value is not None:
            self._keep(kept, what, (kind, key, value, expires_at))
        else:
            tombstone = now_later(kept, self._newest, what)
            expect(what, (tombstone.kind, tombstone.key, tombstone.value), (kind, key, None))
            self._newest = tombstone.version
            del self._wanted[kind, key]

    async def _delete(self, kind: str, key: str) -> None:
        there = self._there(kind, key) is not None
        expect(self._step(f"delete({key!r})"), await self._store.delete(kind, key), there)
        if there:
            del self._wanted[kind, key]

    async def _scan(self, kind: str, key: str) -> None:
        prefix, after = self._random.choice(_PREFIXES), self._random.choice(("", key))
        limit = self._random.randint(1, len(_KEYS))
        what = self._step(f"scan(prefix={prefix!r}, after={after!r}, limit={limit})")
        found = [self._there(kind, each) for each in sorted(_KEYS) if each.startswith(prefix) and each > after]
        wanted = [record for record in found if record is not None][:limit]
        expect(what, await self._store.scan(kind, prefix=prefix, after=after, limit=limit), wanted)

    async def _follow(self, _: str, __: str) -> None:
        """What somebody knows who only asks for changes is what is there."""
        what = self._step(f"changes_since({self._seen_up_to})")
        changes = await self._store.changes_since(self._seen_up_to, [self._kinds[0]])
        versions = [record.version for record in changes.records]
        if versions != sorted(set(versions)):
            raise CheckFailure(f"{what} gave the versions {versions}: right is the oldest change first, each once")
        if changes.complete:
            self._seen.clear()
        for record in changes.records:
            self._seen[record.key] = record
        self._seen_up_to = changes.version
        seen = {key: record for key, record in self._seen.items() if self._is_there(record)}
        wanted = {key: there for key in _KEYS if (there := self._there(self._kinds[0], key)) is not None}
        if seen != wanted:
            got, right = (shown(sorted(each.values())) for each in (seen, wanted))
            raise CheckFailure(f"after {what} a follower knows {got}; right is {right}")

    def _is_there(self, record: Record) -> bool:
        return record.value is not None and (record.expires_at is None or record.expires_at > time.time())
