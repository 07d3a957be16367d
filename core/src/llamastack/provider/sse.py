"""Server-sent events: the bytes of a response -> the data of its events.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream, without its lone CR as
the end of a line.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from llamastack.provider.errors import BackendError

_DATA = b"data:"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LONGEST = 16 * 2**20


async def event_data(blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of each event; several data lines of one event are joined by a line break.

    A line that is cut off at the end of the stream is left out. Raises BackendError for one of more than 16 MiB.
    """
    data: list[bytes] = []
    async for line in _lines(blocks):
        if line.startswith(_DATA):
            data.append(line[len(_DATA) :].strip())
        elif data and not line:
            yield b"\n".join(data)
            data = []
    if data:
        yield b"\n".join(data)


_BOUNDARIES = (b"\n\n", b"\r\n\r\n")
_SEAM = 3  # bytes of a boundary that may be in the block before


def ends_event(block: bytes) -> bool:
    """Whether a block ends where an event does."""
    return block.endswith(_BOUNDARIES)


async def whole_events(blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes, cut only where an event ends.

    An event that is cut off at the end of the stream is left out. Raises BackendError for one of more than 16 MiB.
    """
    begun: list[bytes] = []  # of the event at the end, which may come in many blocks
    size = 0
    async for block in blocks:
        if begun:
            # An end may lie across the two: the first of them has its bytes, and they are looked at once.
            last = begun.pop()
            size -= len(last)
            block = last[-_SEAM:] + block
            if len(last) > _SEAM:
                begun.append(last[:-_SEAM])
                size += len(last) - _SEAM
        if ends_event(block):
            end = len(block)
        else:
            end = max(place + len(mark) if (place := block.rfind(mark)) >= 0 else 0 for mark in _BOUNDARIES)
        if end:
            yield b"".join((*begun, block[:end]))
            begun, size = [], 0
        rest = block[end:]
        if rest:
            begun.append(rest)
            size += len(rest)
        if size > _LONGEST:
            raise BackendError(f"an event is longer than {_LONGEST} bytes")
    left = b"".join(begun)
    if left.endswith(b"\n"):
        yield left + b"\n"


def data_of(block: bytes) -> Iterator[tuple[int, bytes]]:
    """The events of a block of whole ones: where each ends, and its data."""
    start = 0
    while start < len(block):
        ends = [place + len(mark) for mark in _BOUNDARIES if (place := block.find(mark, start)) >= 0]
        end = min(ends, default=len(block))
        lines = block[start:end].splitlines()
        yield end, b"\n".join(line[len(_DATA) :].strip() for line in lines if line.startswith(_DATA))
        start = end


async def _lines(blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Only LF and CR LF end a line, not what else Unicode has for that."""
    begun: list[bytes] = []  # of the line at the end, which may come in many blocks
    size = 0
    first = True
    async for block in blocks:
        if first:
            block = block.removeprefix(_BYTE_ORDER_MARK)
            first = not block
        *lines, rest = block.split(b"\n")
        if lines:
            lines[0] = b"".join((*begun, lines[0]))
            begun, size = [], 0
            for line in lines:
                yield line.removesuffix(b"\r")
        begun.append(rest)
        size += len(rest)
        if size > _LONGEST:
            raise BackendError(f"an event is longer than {_LONGEST} bytes")
