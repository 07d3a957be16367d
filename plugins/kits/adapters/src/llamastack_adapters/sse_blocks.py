"""Blocks of whole server-sent events: the bytes of a forwarded stream, cut only between events."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator

from llamastack.http.sse import BYTE_ORDER_MARK, DATA, EVENT_ENDS, MOST_EVENT_BYTES, NO_DATA, encode, too_long_event

DONE = b"[DONE]"
"""The data of the event that ends a stream in OpenAI's dialect."""
DONE_EVENT = encode(DONE)
"""This event."""

_END = re.compile(rb"\n\r?\n")
_EMPTY = re.compile(rb'(?<![^\n])data:[ \t]*(?:null|"")?[ \t]*[\r\n]')
_BOUNDARY_OVERLAP = 3  # bytes of a boundary that may be in the block before


def is_boundary(block: bytes) -> bool:
    """Whether a block ends where an event does."""
    return block.endswith(EVENT_ENDS)


async def split_at_events(
    blocks: AsyncIterator[bytes], most: int = MOST_EVENT_BYTES, first: bytes = b""
) -> AsyncIterator[bytes]:
    """The same bytes, cut only where an event ends, without a byte order mark.

    first: the bytes that were before those of `blocks`.
    An event that is cut off at the end of the stream is left out. Raises BackendError for one of more than `most`
    bytes.
    """
    begun: list[bytes] = []  # of the event at the end, which may come in many blocks
    size = 0
    block = first
    try:
        while len(block) < len(BYTE_ORDER_MARK):
            block += await blocks.__anext__()
        block = block.removeprefix(BYTE_ORDER_MARK)
        while True:
            if begun:
                # A boundary may lie across two blocks.
                last = begun.pop()
                size -= len(last)
                block = last[-_BOUNDARY_OVERLAP:] + block
                if len(last) > _BOUNDARY_OVERLAP:
                    begun.append(last[:-_BOUNDARY_OVERLAP])
                    size += len(last) - _BOUNDARY_OVERLAP
            if is_boundary(block):
                end = len(block)
            else:
                end = max(place + len(mark) if (place := block.rfind(mark)) >= 0 else 0 for mark in EVENT_ENDS)
            if end:
                yield b"".join((*begun, block[:end])) if begun else block[:end]
                begun, size = [], 0
            rest = block[end:]
            if rest:
                begun.append(rest)
                size += len(rest)
                if size > most:
                    raise too_long_event(most)
            block = await blocks.__anext__()
    except StopAsyncIteration:
        pass
    left = b"".join(begun)
    if left.endswith(b"\n"):
        yield left + b"\n"


def iter_events(block: bytes) -> Iterator[tuple[int, bytes]]:
    """The events of a block of whole ones: where each ends, and its data."""
    start = 0
    while start < len(block):
        found = _END.search(block, start)
        end = len(block) if found is None else found.end()
        lines = block[start:end].splitlines()
        yield end, b"\n".join(line[len(DATA) :].strip() for line in lines if line.startswith(DATA))
        start = end


def without_empty(block: bytes) -> bytes:
    """A block of whole events without the empty ones, which some backends send to keep the connection open."""
    if _EMPTY.search(block) is None:
        return block
    kept: list[bytes] = []
    start = 0
    for end, data in iter_events(block):
        if data.strip() not in NO_DATA or not _has_data(block[start:end]):
            kept.append(block[start:end])
        start = end
    return b"".join(kept)


def _has_data(event: bytes) -> bool:
    return any(line.startswith(DATA) for line in event.splitlines())
