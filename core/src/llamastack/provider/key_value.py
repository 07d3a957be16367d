"""What a provider keeps in the stack's store: values of one type by key, apart from those of all other instances."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from llamastack.provider.errors import InternalError, RequestTooLargeError
from llamastack.provider.store import Record, Store

T = TypeVar("T")
MOST_BYTES = 8 * 1024 * 1024
"""The largest value, as JSON."""
_MOST_KEY_BYTES = 1024


class Entry(NamedTuple, Generic[T]):
    """A value under its key.

    key: unique among the values of one name.
    value: a copy of what is kept.
    version: grows with each change; `swap` compares it.
    expires_at: when the store forgets the value, in seconds since the epoch; None: never.
    """

    key: str
    value: T
    version: int
    expires_at: float | None


class KeyValue(Generic[T]):
    """Values of one type by key; `deps.kv(name, type)` makes it.

    They survive a restart as far as the stack's store does, and every worker sees them. Each call is atomic, also
    against other workers. A value that is read is a copy. `expires_in_s` is when the value is to be forgotten, in
    seconds from now.

    A key is 1 to 1,024 bytes of text. Nothing can be kept under another one, so reading it finds nothing, and writing
    it raises ValueError.

    Every call raises StoreUnavailableError when the store cannot be used now, and InternalError for a value that does
    not fit the type; the message has the key, never the value.
    """

    def __init__(self, store: Store, kind: str, value_type: type[T], provider_id: str) -> None:
        self._store, self._kind, self._provider_id = store, kind, provider_id
        self._adapter: TypeAdapter[T] = TypeAdapter(value_type)

    async def get(self, key: str) -> T | None:
        """The value; None if it is not there."""
        entry = await self.entry(key)
        return None if entry is None else entry.value

    async def entry(self, key: str) -> Entry[T] | None:
        """The value with its version and expiry; None if it is not there."""
        record = await self._store.get(self._kind, key) if _is_possible(key) else None
        return None if record is None else self._read(record)

    async def set(self, key: str, value: T, *, expires_in_s: float | None = None) -> None:
        """Keep the value, whatever is there."""
        text = self._written(key, value)
        await self._store.put(self._kind, _checked(key), text, expires_at=_later(expires_in_s))

    async def add(self, key: str, value: T, *, expires_in_s: float | None = None) -> bool:
        """Keep the value unless something is there; False: something is."""
        text, expires_at = self._written(key, value), _later(expires_in_s)
        added = await self._store.swap(self._kind, _checked(key), text, version=None, expires_at=expires_at)
        return added is not None

    async def swap(self, entry: Entry[T], value: T | None, *, expires_in_s: float | None = None) -> Entry[T] | None:
        """Put the value in place of the entry, or delete it (None), unless somebody has changed it since.

        expires_in_s: None keeps the expiry of the entry.
        Returns the entry as it is now, without a copy of the value (a deleted one: as it was). None: somebody has
        changed it, and nothing was done.
        """
        text = None if value is None else self._written(entry.key, value)
        expires_at = entry.expires_at if expires_in_s is None else _later(expires_in_s)
        record = await self._store.swap(
            self._kind, entry.key, text, version=entry.version, expires_at=None if text is None else expires_at
        )
        if record is None:
            return None
        return entry if value is None else Entry(entry.key, value, record.version, record.expires_at)

    async def update(
        self, key: str, change: Callable[[T | None], T | None], *, expires_in_s: float | None = None
    ) -> T | None:
        """Replace the value by what `change` makes of it; no change of another worker is lost.

        change: gets the value, None if it is not there, and returns the new one, None to delete it. It is called again
            when somebody else was faster, so it must do nothing else.
        expires_in_s: None keeps the expiry.
        Returns what is kept now.
        """
        while True:
            entry = await self.entry(key)
            value = change(None if entry is None else entry.value)
            if entry is not None:
                done = await self.swap(entry, value, expires_in_s=expires_in_s) is not None
            else:
                done = value is None or await self.add(key, value, expires_in_s=expires_in_s)
            if done:
                return value

    async def delete(self, key: str) -> bool:
        """Forget the value; False if it is not there."""
        return _is_possible(key) and await self._store.delete(self._kind, key)

    async def scan(self, prefix: str = "", after: str = "", limit: int = 100) -> list[Entry[T]]:
        """At most `limit` entries whose keys begin with `prefix` and come after `after`, in the order of their keys."""
        return [self._read(record) for record in await self._records(prefix, after, limit)]

    async def keys(self, prefix: str = "", after: str = "", limit: int = 100) -> list[str]:
        """The keys of those entries, also of values that do not fit the type."""
        return [record.key for record in await self._records(prefix, after, limit)]

    async def _records(self, prefix: str, after: str, limit: int) -> list[Record]:
        if not _is_possible(prefix or "any"):
            return []
        return await self._store.scan(self._kind, prefix=prefix, after=after, limit=limit)

    def _read(self, record: Record) -> Entry[T]:
        try:
            value = self._adapter.validate_json(record.value or "")
        except ValidationError:
            raise self._unfit(record.key, "what is kept does not fit its type") from None
        return Entry(record.key, value, record.version, record.expires_at)

    def _written(self, key: str, value: T) -> str:
        try:
            text = self._adapter.dump_json(value, warnings="error")
        except PydanticSerializationError:
            raise self._unfit(key, "what is to be kept does not fit its type") from None
        if len(text) > MOST_BYTES:
            message = f"{self._kind} '{key}' is too large to be kept: {len(text):,} bytes, at most {MOST_BYTES:,}"
            raise RequestTooLargeError(message, provider_id=self._provider_id)
        return text.decode()

    def _unfit(self, key: str, what: str) -> InternalError:
        return InternalError(f"{self._kind} '{key}': {what}", provider_id=self._provider_id)


def _is_possible(key: str) -> bool:
    try:
        return 0 < len(key.encode()) <= _MOST_KEY_BYTES
    except UnicodeEncodeError:  # a lone surrogate
        return False


def _checked(key: str) -> str:
    if not _is_possible(key):
        raise ValueError(f"a key is 1 to {_MOST_KEY_BYTES:,} bytes of text without lone surrogates")
    return key


def _later(seconds: float | None) -> float | None:
    return None if seconds is None else time.time() + seconds
