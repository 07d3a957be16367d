"""The beginning of a body that arrives in blocks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from llamastack.provider.streams import closing

_PEEK_BYTES = 16  # bytes at the beginning of a body that show what it is


async def first_bytes(blocks: AsyncIterator[bytes]) -> bytes:
    """The beginning of a body, long enough to show what it is. Leading blocks of white space are dropped."""
    first = b""
    async for block in blocks:
        if not first and block.isspace():
            continue  # keeping them and looking at them each time would take quadratic time
        first += block
        if len(first.lstrip()) > _PEEK_BYTES:
            break
    return first


async def from_first(first: Any, rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """`first`, then the rest, which is closed with this."""
    async with closing(rest):
        yield first
        async for one in rest:
            yield one


async def after(first: bytes, blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """`first`, if there is any, then the blocks."""
    if first:
        yield first
    async for block in blocks:
        yield block
