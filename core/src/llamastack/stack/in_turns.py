"""Many objects without holding up the event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import TypeVar

from anyio.lowlevel import checkpoint

_T = TypeVar("_T")
IN_ONE_TURN = 400
"""How many objects are handled before the event loop gets its turn: about 5 ms of work."""


async def in_turns(objects: Collection[_T]) -> AsyncIterator[_T]:
    """The objects; the event loop gets its turn in between. The collection must not change meanwhile."""
    for number, each in enumerate(objects, 1):
        if number % IN_ONE_TURN == 0:
            await checkpoint()
        yield each
