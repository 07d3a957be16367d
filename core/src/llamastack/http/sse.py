"""Server-sent events: the bytes of a response -> the data of its events.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream, without its lone CR as
the end of a line.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator

from llamastack.provider.errors import BackendError

_DATA = b"data:"
NO_DATA = (b"", b"null", b'""')
"""The data of events that say nothing, which some backends send to keep the connection. They are left out."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MOST_EVENT_BYTES = 16 * 2**20
"""The default of how long an event may be."""


async def event_data(blocks: AsyncIterator[bytes], most: int = MOST_EVENT_BYTES) -> AsyncIterator[bytes]:
    """The data of each event that has any; several data lines of one event are joined by a line break.

    A line that is cut off at the end of the stream is left out. Raises BackendError for an event of more than `most`
    bytes.
    """
    data: list[bytes] = []
    size = 0
    async for line in lines_of(blocks, most):
        if line.startswith(_DATA):
            data.append(line[len(_DATA) :].strip())
            size += len(line)
            if size > most:
                raise too_long_event(most)
        elif data and not line:
            told = b"\n".join(data)
            if told.strip() not in NO_DATA:
                yield told
            data, size = [], 0
    told = b"\n".join(data)
    if told.strip() not in NO_DATA:
        yield told


def too_long_event(most: int, who: str = "the backend") -> BackendError:
    """The error for an event of more than `most` bytes. who: the backend, for the message."""
    return BackendError(f"{who} sent an event of more than {most} bytes ('max_event_bytes' in the config)")


# A line that ends by CR LF and is empty ends an event whatever the line before it ends by.
_BOUNDARIES = (b"\n\n", b"\n\r\n")
_END = re.compile(rb"\n\r?\n")
_EMPTY = re.compile(rb'(?<![^\n])data:[ \t]*(?:null|"")?[ \t]*[\r\n]')
_BOUNDARY_OVERLAP = 3  # bytes of a boundary that may be in the block before


def ends_event(block: bytes) -> bool:
    """Whether a block ends where an event does."""
    return block.endswith(_BOUNDARIES)


async def whole_events(
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
        while len(block) < len(_BYTE_ORDER_MARK):
            block += await blocks.__anext__()
        block = block.removeprefix(_BYTE_ORDER_MARK)
        while True:
            if begun:
                # An end may lie across the two: the first of them has its bytes, and they are looked at once.
                last = begun.pop()
                size -= len(last)
                block = last[-_BOUNDARY_OVERLAP:] + block
                if len(last) > _BOUNDARY_OVERLAP:
                    begun.append(last[:-_BOUNDARY_OVERLAP])
                    size += len(last) - _BOUNDARY_OVERLAP
            if ends_event(block):
                end = len(block)
            else:
                end = max(place + len(mark) if (place := block.rfind(mark)) >= 0 else 0 for mark in _BOUNDARIES)
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


def data_of(block: bytes) -> Iterator[tuple[int, bytes]]:
    """The events of a block of whole ones: where each ends, and its data."""
    start = 0
    while start < len(block):
        found = _END.search(block, start)
        end = len(block) if found is None else found.end()
        lines = block[start:end].splitlines()
        yield end, b"\n".join(line[len(_DATA) :].strip() for line in lines if line.startswith(_DATA))
        start = end


def without_empty(block: bytes) -> bytes:
    """A block of whole events without those whose data is nothing, which some backends send to keep the connection."""
    if _EMPTY.search(block) is None:
        return block
    kept: list[bytes] = []
    start = 0
    for end, data in data_of(block):
        if data.strip() not in NO_DATA or not _has_data(block[start:end]):
            kept.append(block[start:end])
        start = end
    return b"".join(kept)


def _has_data(event: bytes) -> bool:
    return any(line.startswith(_DATA) for line in event.splitlines())


async def lines_of(blocks: AsyncIterator[bytes], most: int = MOST_EVENT_BYTES) -> AsyncIterator[bytes]:
    """The lines of a body. Only LF and CR LF end one, not what else Unicode has for that.

    A line that is cut off at the end of the body is left out. Raises BackendError for one of more than `most` bytes.
    """
    begun: list[bytes] = []  # of the line at the end, which may come in many blocks
    size = 0
    first = True
    async for block in blocks:
        *lines, rest = block.split(b"\n")
        if lines:
            lines[0] = b"".join((*begun, lines[0]))
            begun, size = [], 0
            if first:
                lines[0] = lines[0].removeprefix(_BYTE_ORDER_MARK)
                first = False
            for line in lines:
                yield line.removesuffix(b"\r")
        begun.append(rest)
        size += len(rest)
        if size > most:
            raise too_long_event(most)
