"""Server-sent events: the bytes of a response -> the data of its events.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream, without its lone CR as
the end of a line.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from llamastack.provider.errors import BackendError

_DATA = b"data:"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LONGEST_LINE = 16 * 2**20


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


async def whole_events(blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes, cut only where an event ends.

    An event that is cut off at the end of the stream is left out. Raises BackendError for one of more than 16 MiB.
    """
    begun = b""
    async for block in blocks:
        if begun:
            block = begun + block
        if block.endswith(_BOUNDARIES):
            begun = b""
            yield block
            continue
        end = max(place + len(mark) if (place := block.rfind(mark)) >= 0 else 0 for mark in _BOUNDARIES)
        begun = block[end:]
        if end:
            yield block[:end]
        if len(begun) > _LONGEST_LINE:
            raise BackendError(f"an event is longer than {_LONGEST_LINE} bytes")
    if begun.endswith(b"\n"):
        yield begun + b"\n"


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
        if size > _LONGEST_LINE:
            raise BackendError(f"an event is longer than {_LONGEST_LINE} bytes")
