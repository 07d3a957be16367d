"""The store of a stack: it keeps registrations, what providers listed last, and the state of providers.

A store is a plugin: a class with these methods, in the entry-point group `llamastack.stores`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, NamedTuple, Protocol

TOMBSTONE_S = 86_400.0
"""How long a store remembers what was deleted of a followed kind: a day."""


class Record(NamedTuple):
    """What the store keeps under one key of one kind.

    kind: what it is, such as `models` for registered models.
    key: unique in its kind; any text that is not empty, without lone surrogates.
    value: the text that is kept, mostly JSON, without lone surrogates; None when the record was deleted.
    version: number of the change that made it. Numbers grow over all kinds, and none is used again.
    expires_at: when it is forgotten, in seconds since the epoch; None: never.
    """

    kind: str
    key: str
    value: str | None
    version: int
    expires_at: float | None = None


class Changes(NamedTuple):
    """What has changed.

    version: of the newest change in the store; ask for the changes since this one next.
    records: the last state of each changed record, oldest change first.
    complete: these are all records of the kinds. A record that is not among them is gone.
    """

    version: int
    records: list[Record]
    complete: bool


class Store(Protocol):
    """A store, shared by all workers of a stack.

    The class has `config_class`, the pydantic model of `store.config`, and is made with that config and the stack's own
    folder (None if it has none). `shared` says whether processes with the same config see each other's records. A class
    without the attribute counts as shared. A store that is not shared is refused with more than one worker.

    Each method is atomic, also against other processes, and leaves the old or the new record when the process dies.
    Expired records are as if deleted; the store removes them a few at a time when it writes.

    Every method raises StoreUnavailableError, naming the store and the cause, when the store cannot be used now.
    """

    shared: ClassVar[bool] = True

    async def open(self, followed: Collection[str] = ()) -> None:
        """Get ready.

        followed: the kinds that somebody asks `changes_since` for. The store remembers what is deleted of them for
        `TOMBSTONE_S`; of other kinds it keeps nothing.
        Raises OSError when it cannot be used.
        """

    async def get(self, kind: str, key: str) -> Record | None:
        """The record; None if it is not there."""

    async def put(self, kind: str, key: str, value: str, *, expires_at: float | None = None) -> Record:
        """Keep a value, whatever is there. Raises ValueError for a key or value that is no record's; so does `swap`."""

    async def swap(
        self, kind: str, key: str, value: str | None, *, version: int | None, expires_at: float | None = None
    ) -> Record | None:
        """Keep a value, or delete the record (None), unless somebody has changed it since.

        version: of the record as the caller knows it; None: it is not there.
        Returns what is kept now, or None if nothing was changed because the record has another version.
        """

    async def delete(self, kind: str, key: str) -> bool:
        """Forget the record; False if it is not there."""

    async def scan(self, kind: str, *, prefix: str = "", after: str = "", limit: int) -> list[Record]:
        """At most `limit` records whose keys begin with `prefix` and come after `after`, in the order of their keys.

        Keys are ordered by code points.
        """

    async def changes_since(self, version: int, kinds: Collection[str]) -> Changes:
        """The records of these kinds that changed after `version`, deleted ones too; 0: all that are there.

        The changes are complete where the store no longer remembers all that was deleted after `version`.
        """

    async def close(self) -> None:
        """Let go of everything; safe to call twice."""


def check_swap(value: str | None, version: int | None) -> None:
    """Raises ValueError for a swap that would delete what is not there."""
    if value is None and version is None:
        raise ValueError("swap() with value None deletes a record, so it needs the version of that record")


def check_record(key: str, value: str | None) -> None:
    """Raises ValueError for a record that not every store could keep."""
    if not key:
        raise ValueError("the key of a record is empty")
    for text in (key, value or ""):
        text.encode()  # raises UnicodeEncodeError, a ValueError, for a lone surrogate
