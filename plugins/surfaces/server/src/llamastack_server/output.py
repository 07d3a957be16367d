"""How a response is written: in few calls of the system."""

from __future__ import annotations

import asyncio

# Blocks that one stream may send before the loop turns to something else.
LONGEST_TURN = 8
_CONTINUE = b"HTTP/1.1 100 "
_MOST_WAITING = 2**16  # bytes
_LINGERS_S = 2.0


class Output:
    """Writes a response with as few system calls as possible: a head goes out with the first block of
    its body, and the blocks after it together, as many as there are before the loop turns to something else.

    A call is a tenth of a request that is only forwarded, and two fifths of a piece of a native stream; each write
    saved also saves the client one wake-up.
    """

    __slots__ = ("_head", "_lingers", "_loop", "_new", "_transport", "_waiting", "_waiting_bytes", "blocks", "written")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._new = True
        self._head: bytes | None = None
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self.blocks = 0
        """How many were written since the loop turned to something else."""
        self.written = 0
        """Bytes that the transport was given."""
        self._lingers = False

    def write(self, data: bytes) -> None:
        if self._new:
            if data.startswith(_CONTINUE):
                self._send(data)  # the client waits for it before it sends its body
            else:
                self._new, self._head = False, data
        elif self._head is not None:
            head, self._head = self._head, None
            self._send(head + data)
        else:
            if not self.blocks:
                self._loop.call_soon(self._turn)
            self.blocks += 1
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            if self._waiting_bytes > _MOST_WAITING:
                self._flush()  # so that the transport can say that the client does not keep up
                self.blocks += LONGEST_TURN

    def _turn(self) -> None:
        self.blocks = 0
        self._flush()

    def _send(self, data: bytes) -> None:
        # uvicorn looks whether the client is there when it writes, which may be a moment ago.
        if not self._transport.is_closing():
            self.written += len(data)
            self._transport.write(data)

    def _flush(self) -> None:
        if self._waiting:
            data, self._waiting, self._waiting_bytes = b"".join(self._waiting), [], 0
            self._send(data)

    def end_response(self) -> None:
        """Write what is held back, such as the head of a response without a body."""
        self._new = True
        if self._head is not None:
            head, self._head = self._head, None
            self._send(head)
        self._flush()

    def set_lingers(self, lingers: bool) -> None:
        """Whether the client may still be sending when it is closed: closed at once, it would lose the last reply."""
        self._lingers = lingers

    def close(self) -> None:
        self.end_response()
        if self._lingers and self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
            self._loop.call_later(_LINGERS_S, self._transport.abort)
        else:
            self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()
