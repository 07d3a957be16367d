"""Stores, which keep registrations. A store is a plugin (entry-point group `llamastack.stores`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A registered object, or a note that it was unregistered.

    kind: name of the resource API, such as `models`; the stack also keeps other records under kinds of its own.
    body: its JSON text; None when it was unregistered.
    """

    kind: str
    identifier: str
    provider_id: str
    body: str | None


class Store(Protocol):
    """A store shared by all workers of a stack.

    shared: whether processes with the same config see each other's objects. A class without the attribute is taken to
    be; one that keeps them in its own process sets it to False, and is refused with more than one worker.
    """

    shared: ClassVar[bool] = True

    async def open(self) -> None:
        """Get ready. Raises OSError when it cannot be used."""

    async def changes_since(self, sequence: int) -> tuple[int, list[StoredObject]]:
        """The newest sequence number, and what was put or deleted after `sequence` (0: everything that is there).

        In a store that is shared, the newest number is above 0 even when nothing is there: asking again with 0 would
        leave out what was put and deleted in between.
        """

    async def put(self, item: StoredObject, *, replace: bool = False) -> bool:
        """Keep `item`. Returns False and changes nothing if there is one with that kind and identifier.

        replace: it takes the place of what is there.
        """

    async def delete(self, kind: str, identifier: str) -> bool:
        """Forget it; False when it was not there."""

    async def close(self) -> None:
        """Let go of everything; safe to call twice."""
