"""The connection of a request: whether the client is still there, and what has been sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_EXTENSION = "llamastack.connection"


class Connection(HttpToolsProtocol):
    """uvicorn's, which also tells apps that the client has gone: one need not have a task that waits for it, which
    costs a seventh of a request that is merely forwarded.
    """

    when_lost: set[Callable[[], None]]
    """Called when the connection is lost; those of requests in work."""
    lost: bool = False

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {_EXTENSION: self}  # type: ignore[dict-item]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.when_lost = set()
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lost = True
        for call in tuple(self.when_lost):
            call()


def connection_of(scope: Scope) -> Connection | None:
    """The connection where it is one of ours; None under another server."""
    found = scope.get("extensions", {}).get(_EXTENSION)
    return found if isinstance(found, Connection) else None


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
