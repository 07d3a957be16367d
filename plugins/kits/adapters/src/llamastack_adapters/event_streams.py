"""The decoded events of a backend, and reading a stream to its end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext, suppress
from typing import TypeVar

import anyio
import anyio.lowlevel

from llamastack.provider.streams import Stream

_T = TypeVar("_T")
_DRAIN_TIMEOUT_S = 0.25  # more than a round trip to most backends; a client that has all but the end waits as long


class EventStream(Stream[_T]):
    """The decoded events of a backend.

    events: returns them; its argument is a function to call at the backend's end marker.
    on_close: releases their source.
    """

    def __init__(
        self, events: Callable[[Callable[[], None]], AsyncIterator[_T]], on_close: Callable[[], Awaitable[object]]
    ) -> None:
        super().__init__(events(self._end), on_close)
        self.done = False
        """Whether the backend has sent its end marker: `[DONE]` in OpenAI's dialect."""

    def _end(self) -> None:
        self.done = True


async def drain_briefly(rest: AsyncIterator[object], *, arrived: bool = False) -> None:
    """Wait briefly for the end of a stream after its end marker.

    Only a connection that is read to its end can be used again. Further data and failures are ignored.
    arrived: whether all of it has arrived, so that there is nothing to wait for.
    """
    with nullcontext() if arrived else anyio.move_on_after(_DRAIN_TIMEOUT_S), suppress(Exception):
        async for _ in rest:
            await anyio.lowlevel.checkpoint()  # a stream that always has more data would never let the time limit run
