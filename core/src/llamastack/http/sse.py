"""Server-sent events: writing one, and reading the data of the events in the bytes of a response.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream, without its lone CR as
the end of a line.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from llamastack.provider.errors import BackendError

DATA = b"data:"
"""The field of an event that holds its data."""
NO_DATA = (b"", b"null", b'""')
"""The data of empty events, which some backends send to keep the connection open. They are left out."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""What some senders put before UTF-8."""
EVENT_ENDS = (b"\n\n", b"\n\r\n")
"""The ends of a block of whole events. After CR LF an empty line ends an event whatever the line before it ends by."""
MOST_EVENT_BYTES = 16 * 2**20
"""The default limit for one event, in bytes."""

# Characters that some clients take for the end of a line, though JSON may hold them and SSE knows only CR and LF.
_LINE_ENDS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))


def encode(data: bytes, name: str = "") -> bytes:
    """An event with this JSON as its data, in one line for every client. name: the name of the event, if it has one."""
    for raw, escaped in _LINE_ENDS:
        if raw in data:
            data = data.replace(raw, escaped)
    if name:
        return b"event: %b\ndata: %b\n\n" % (" ".join(name.split()).encode(errors="replace"), data)
    return b"data: %b\n\n" % data


async def iter_data(blocks: AsyncIterator[bytes], most: int = MOST_EVENT_BYTES) -> AsyncIterator[bytes]:
    """The data of each event that has any; several data lines of one event are joined by a line break.

    A line that is cut off at the end of the stream is left out. Raises BackendError for an event of more than `most`
    bytes.
    """
    data: list[bytes] = []
    size = 0
    async for line in iter_lines(blocks, most):
        if line.startswith(DATA):
            data.append(line[len(DATA) :].strip())
            size += len(line)
            if size > most:
                raise too_long_event(most)
        elif data and not line:
            if (joined := b"\n".join(data)).strip() not in NO_DATA:
                yield joined
            data, size = [], 0
    if (joined := b"\n".join(data)).strip() not in NO_DATA:
        yield joined


def too_long_event(most: int, who: str = "the backend") -> BackendError:
    """The error for an event of more than `most` bytes. who: the backend, for the message."""
    return BackendError(f"{who} sent an event of more than {most} bytes ('max_event_bytes' in the config)")


async def iter_lines(blocks: AsyncIterator[bytes], most: int = MOST_EVENT_BYTES) -> AsyncIterator[bytes]:
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
                lines[0] = lines[0].removeprefix(BYTE_ORDER_MARK)
                first = False
            for line in lines:
                yield line.removesuffix(b"\r")
        begun.append(rest)
        size += len(rest)
        if size > most:
            raise too_long_event(most)
