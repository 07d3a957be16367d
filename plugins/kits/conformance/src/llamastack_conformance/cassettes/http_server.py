"""A small HTTP/1.1 server (RFC 9112, by h11) that notices at once when its client leaves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio
import h11
from anyio.abc import ByteStream

_MOST_OF_A_HEAD = 256 * 1024
_LEAVES = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. target: path and query."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Reply:
    """The answer to one request. Without one, the connection is closed."""

    def __init__(self, connection: h11.Connection, stream: ByteStream) -> None:
        self._connection = connection
        self._stream = stream

    async def begin(self, status: int, headers: Sequence[tuple[str, str]], length: int | None) -> None:
        """Send the head. length: bytes of the body; None for a stream of pieces."""
        framing = ("transfer-encoding", "chunked") if length is None else ("content-length", str(length))
        await self._send(h11.Response(status_code=status, headers=[*headers, framing]))

    async def piece(self, data: bytes) -> None:
        """Send a part of the body."""
        await self._send(h11.Data(data=data))

    async def end(self) -> None:
        """The answer is whole."""
        await self._send(h11.EndOfMessage())

    async def _send(self, event: h11.Event) -> None:
        if data := self._connection.send(event):
            await self._stream.send(data)


Handler = Callable[[Asked, Reply], Awaitable[None]]
"""Answers a request; cancelled when the client leaves."""


async def serve(stream: ByteStream, handle: Handler) -> None:
    """Answer the requests of one connection."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MOST_OF_A_HEAD)
    async with stream:
        try:
            while (asked := await _next_request(connection, stream)) is not None:
                await _answer(connection, stream, asked, handle)
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    return
                connection.start_next_cycle()
        except (*_LEAVES, h11.RemoteProtocolError):
            return  # the client has left, or speaks something else; its own error says it


async def _next_request(connection: h11.Connection, stream: ByteStream) -> Asked | None:
    """The next request; None when the client has left."""
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            try:
                connection.receive_data(await stream.receive())
            except anyio.EndOfStream:
                return None
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers)
            return Asked(head.method.decode("ascii"), head.target.decode("latin-1"), headers, bytes(body))
        else:
            return None


async def _answer(connection: h11.Connection, stream: ByteStream, asked: Asked, handle: Handler) -> None:
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            try:
                connection.receive_data(await stream.receive())  # the client's next request
            except _LEAVES:
                group.cancel_scope.cancel()

        group.start_soon(watch, name="cassette-client")
        with suppress(*_LEAVES):  # the client has left
            await handle(asked, Reply(connection, stream))
        group.cancel_scope.cancel()
