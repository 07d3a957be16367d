"""What the endpoints of every surface share: read the body, answer while the client is there, send JSON or events."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import ClassVar

from llamastack.provider.errors import LlamaStackError
from llamastack.provider.routes import AsgiMessage, Receive, Scope, Send
from llamastack.provider.streams import closing
from llamastack_server.connection import connection_of
from llamastack_server.disconnect import ServerStoppingError, while_connected
from llamastack_server.element_limit import NUMBERS_IN_ONE, refuse_more_elements
from llamastack_server.errors import ErrorShape
from llamastack_server.scope_state import state_of
from llamastack_server.sender import Sender

_LOGGER = logging.getLogger("llamastack.server")
EVENT_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that is neither JSON with status 200 nor events.

    content: all of it, or its blocks. headers: what it has beside the request's id.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    content: bytes | AsyncIterator[bytes]


class Endpoint:
    """An ASGI app for one route. A subclass says how it is answered.

    errors: how errors look in the middle of a stream. numbers_in_one: how many numbers in a body take as long to check
    as a text does.
    """

    numbers_in_one: ClassVar[int] = NUMBERS_IN_ONE
    sends_bytes: bool = False
    """Whether its streams are no events: a failure in mid-stream can only break such a reply off."""
    reads_json: bool = True
    """Whether a body is JSON, whose elements are counted before it is read."""

    def __init__(self, errors: ErrorShape) -> None:
        self.errors = errors

    async def respond(self, scope: Scope, body: bytes) -> bytes | AsyncIterator[bytes] | Reply:
        """JSON, or an iterator of server-sent events, each block one or several whole ones, or another `Reply`.

        Raises the error that the client gets.
        """
        raise NotImplementedError

    def complete(self, error: LlamaStackError) -> None:
        """Add to an error what only this endpoint knows about it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limits = state_of(scope).limits
        body = await limits.bodies.read(scope, receive)
        try:
            if self.reads_json:
                refuse_more_elements(body, limits.max_body_elements, self.numbers_in_one)
            await self.serve(scope, body, receive, Sender.around(send))
        finally:
            limits.bodies.let_go(body)

    async def serve(self, scope: Scope, body: bytes, receive: Receive, send: Sender) -> None:
        """Answer a request whose body is read, as long as the client is there."""
        failure = await while_connected(self._answer, scope, body, receive, send)
        if failure is None:
            return
        try:
            if isinstance(failure, ServerStoppingError) and send.status:
                if not self.sends_bytes:
                    await send({"type": "http.response.body", "body": self.errors.event(failure)})
                return
            if isinstance(failure, LlamaStackError):
                self.complete(failure)
            raise failure
        finally:
            failure = None  # else it would keep this frame, and with it the body, until garbage is collected

    async def _answer(self, scope: Scope, body: bytes, send: Sender) -> None:
        result = await self.respond(scope, body)
        if isinstance(result, bytes):
            await send.whole(result)
        else:
            await self._send_reply(result, send, scope)

    async def _send_reply(self, result: AsyncIterator[bytes] | Reply, send: Sender, scope: Scope) -> None:
        status, headers = (result.status, result.headers) if isinstance(result, Reply) else (200, EVENT_STREAM)
        head: AsgiMessage = {"type": "http.response.start", "status": status, "headers": [*headers]}
        content = result.content if isinstance(result, Reply) else result
        if isinstance(content, bytes):
            await send(head)
            await send({"type": "http.response.body", "body": content})
            return
        async with closing(content):
            await self._send_stream(content, head, send, scope)

    async def _send_stream(self, blocks: AsyncIterator[bytes], head: AsgiMessage, send: Sender, scope: Scope) -> None:
        connection, turns = connection_of(scope), state_of(scope).limits.turns
        started = False
        try:
            async for block in blocks:
                if not started:
                    # The head is sent only now: a failure before the first piece still gets its own status.
                    started = True
                    await send(head)
                await send({"type": "http.response.body", "body": block, "more_body": True})
                if connection is None or connection.runs_on:
                    await turns.next()  # else a backend that always has more would stop all others
        except LlamaStackError as error:
            if not started:
                raise
            _LOGGER.warning("stream broken off: %s", error.message)
            if self.sends_bytes:
                return  # the server closes a connection whose reply is not complete
            self.complete(error)
            await send({"type": "http.response.body", "body": self.errors.event(error), "more_body": True})
        if not started:
            await send(head)
        await send({"type": "http.response.body", "body": b""})
