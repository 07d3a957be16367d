"""Server-sent events: the bytes of a response -> the data of its events.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream, without its lone CR as
the end of a line.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

_DATA = b"data:"


async def event_data(blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of each event; several data lines of one event are joined by a line break.

    A line that is cut off at the end of the stream is left out.
    """
    rest = b""
    data: list[bytes] = []
    async for block in blocks:
        # Only LF and CR LF end a line, not what else Unicode has for that.
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            if line.startswith(_DATA):
                data.append(line[len(_DATA) :].strip())
            elif data and line in (b"", b"\r"):
                yield b"\n".join(data)
                data = []
    if data:
        yield b"\n".join(data)
