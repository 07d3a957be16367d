"""Streams that are closed for certain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Generic, Self, TypeVar

import anyio
import anyio.lowlevel

_T = TypeVar("_T")
_DRAIN_TIMEOUT_S = 0.25  # more than a round trip to most backends; a client that has all but the end waits as long


class Stream(AsyncIterator[_T], Generic[_T]):
    """An async iterator with an `aclose` that works before the first piece, too.

    The `finally` of an async generator that was never started does not run; `on_close` does, once.

    pieces: what to iterate over.
    on_close: lets go of what the pieces come from.
    """

    def __init__(self, pieces: AsyncIterator[_T], on_close: Callable[[], Awaitable[Any]]) -> None:
        self._pieces = pieces
        self._on_close: Callable[[], Awaitable[Any]] | None = on_close

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        return await self._pieces.__anext__()

    async def aclose(self) -> None:
        """Close the stream and what it comes from; safe to call twice."""
        on_close, self._on_close = self._on_close, None
        with anyio.CancelScope(shield=True):
            try:
                await close(self._pieces)
            finally:
                if on_close is not None:
                    await on_close()


class EventStream(Stream[_T]):
    """The decoded events of a backend.

    events: gives them; it is handed what to call when the backend has said that nothing more comes.
    on_close: lets go of what they come from.
    """

    def __init__(
        self, events: Callable[[Callable[[], None]], AsyncIterator[_T]], on_close: Callable[[], Awaitable[Any]]
    ) -> None:
        super().__init__(events(self._end), on_close)
        self.done = False
        """Whether the backend has said that nothing more comes, as OpenAI's dialect does by `[DONE]`."""

    def _end(self) -> None:
        self.done = True


async def close(pieces: object) -> None:
    """Close an iterator that can be closed."""
    aclose = getattr(pieces, "aclose", None)
    if aclose is not None:
        await aclose()


async def drain_briefly(rest: AsyncIterator[object]) -> None:
    """Wait for the end of a stream that has said all that it has to say, but not for long.

    Only a connection that is read to its end can be used again. What still comes or fails is of no interest.
    """
    with anyio.move_on_after(_DRAIN_TIMEOUT_S), suppress(Exception):
        async for _ in rest:
            await anyio.lowlevel.checkpoint()  # one that always has more would never let the time be over


def closing(pieces: AsyncIterator[_T]) -> AbstractAsyncContextManager[AsyncIterator[_T]]:
    """`async with closing(pieces)`: close the inner iterator with the outer one, in the same task, at once."""

    @asynccontextmanager
    async def manager() -> AsyncIterator[AsyncIterator[_T]]:
        try:
            yield pieces
        finally:
            with anyio.CancelScope(shield=True):
                await close(pieces)

    return manager()
