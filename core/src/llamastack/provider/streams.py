"""Streams that are always closed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, Self, TypeVar

import anyio

from llamastack.api.files import File

_T = TypeVar("_T")


class Stream(AsyncIterator[_T], Generic[_T]):
    """An async iterator with an `aclose` that works before the first piece, too.

    The `finally` of an async generator that was never started does not run; `on_close` does, once.

    pieces: what to iterate over.
    on_close: releases the source of the pieces.
    """

    def __init__(self, pieces: AsyncIterator[_T], on_close: Callable[[], Awaitable[object]]) -> None:
        self._pieces = pieces
        self._on_close: Callable[[], Awaitable[object]] | None = on_close

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        return await self._pieces.__anext__()

    async def aclose(self) -> None:
        """Close the stream and what it comes from; safe to call twice."""
        on_close, self._on_close = self._on_close, None
        if on_close is None and getattr(self._pieces, "ag_frame", self) is None:
            return
        with anyio.CancelScope(shield=True):
            try:
                await close(self._pieces)
            finally:
                if on_close is not None:
                    await on_close()


def with_pieces(reply: object, change: Callable[[AsyncIterator[Any]], AsyncIterator[Any]]) -> Any:
    """`reply` with its pieces changed where it comes in pieces: a stream, or the blocks of a file."""
    if isinstance(reply, AsyncIterator):
        return change(reply)
    if isinstance(reply, File) and not isinstance(reply.content, bytes):
        return reply.with_content(change(reply.content))
    return reply


def pieces_in(reply: object) -> list[AsyncIterator[Any]]:
    """What `with_pieces` changes: one iterator, or none."""
    content = reply.content if isinstance(reply, File) else reply
    return [content] if isinstance(content, AsyncIterator) else []


async def close(pieces: object) -> None:
    """Close an iterator that can be closed."""
    aclose = getattr(pieces, "aclose", None)
    if aclose is not None:
        await aclose()


class closing(AbstractAsyncContextManager[_T]):  # noqa: N801 - as contextlib's
    """`async with closing(pieces)`: close the inner iterator with the outer one, in the same task, at once."""

    def __init__(self, pieces: _T) -> None:
        self._pieces = pieces

    async def __aenter__(self) -> _T:
        return self._pieces

    async def __aexit__(self, *_: object) -> None:
        # perf: gateway. Several of these are nested, and most of the iterators that they close have ended already.
        if isinstance(self._pieces, Stream):
            await self._pieces.aclose()
        elif getattr(self._pieces, "ag_frame", self) is not None:
            with anyio.CancelScope(shield=True):
                await close(self._pieces)
