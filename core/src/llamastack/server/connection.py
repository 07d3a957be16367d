"""The connection of a request: whether the client is still there, and what has been sent."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable

from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_EXTENSION = "llamastack.connection"
_CONTINUE = b"HTTP/1.1 100 "
_MOST_WAITING = 2**16  # bytes


def _nothing() -> None:
    """That a response is complete."""


class _Output:
    """What a response is written to, in as few calls of the system as can be: a head goes out with the first block of
    its body, and the blocks after it together, as many as there are before the loop turns to something else.

    A call is a tenth of a request that is only forwarded, and two fifths of a piece of a native stream; each one less
    also is an awakening less of the client.
    """

    __slots__ = ("_head", "_loop", "_new", "_transport", "_waiting", "_waiting_bytes")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._new = True
        self._head: bytes | None = None
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0

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
            if not self._waiting:
                self._loop.call_soon(self._flush)
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            if self._waiting_bytes > _MOST_WAITING:
                self._flush()  # so that the transport can say that the client does not keep up

    def _send(self, data: bytes) -> None:
        # uvicorn looks whether the client is there when it writes, which may be a moment ago.
        if not self._transport.is_closing():
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

    def close(self) -> None:
        self.end_response()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


class Connection(HttpToolsProtocol):
    """uvicorn's, with fewer calls of the system, and which tells apps that the client has gone: one need not have a
    task that waits for it, which costs a seventh of a request that is merely forwarded.
    """

    when_lost: set[Callable[[], None]]
    """Called when the connection is lost; those of requests in work."""
    lost: bool = False

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {_EXTENSION: self._itself}  # type: ignore[dict-item]

    def watch(self, leave: Callable[[], None]) -> None:
        """Have `leave` called when the connection is lost, until it is taken from `when_lost`. For a request whose body
        is read.
        """
        self.when_lost.add(leave)
        # After a large body uvicorn reads on only when it is asked for more, and sees no end before.
        self.flow.resume_reading()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.when_lost = set()
        self._output = _Output(transport, self.loop)
        # Weak, as the connection has the scope: else each would stay until garbage is collected.
        self._itself = weakref.ref(self)
        super().connection_made(transport)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.transport = self._output  # type: ignore[assignment]

    def on_response_complete(self) -> None:
        self._output.end_response()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        self._output.end_response()  # before what is written past it
        super().send_400_response(msg)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lost = True
        for cycle, _ in self.pipeline:
            cycle.on_response = _nothing  # which holds this connection until the cycle has run, and it will not
        for call in tuple(self.when_lost):
            call()


def connection_of(scope: Scope) -> Connection | None:
    """The connection where it is one of ours; None under another server."""
    found: weakref.ref[Connection] | None = scope.get("extensions", {}).get(_EXTENSION)
    return None if found is None else found()


class Sender:
    """Sends the messages of one response, with the request's id in its head.

    status: of the response; 0 until its head is sent. complete: whether its last byte is.
    """

    __slots__ = ("_header", "_send", "complete", "status")

    def __init__(self, send: Send, header: tuple[bytes, bytes]) -> None:
        self._send = send
        self._header = header
        self.status = 0
        self.complete = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"].append(self._header)
        elif not message.get("more_body", False):
            self.complete = True
        await self._send(message)


App = Callable[[Scope, Receive, Sender], Awaitable[None]]
"""An ASGI app inside the server, which answers through a `Sender`."""
