"""`GET /metrics`: an ASGI app, on the server's port or on a port of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from llamastack.provider.errors import LlamaStackError
from llamastack.provider.hookspecs import Action, Resource
from llamastack.provider.routes import AsgiApp, Receive, Scope, Send
from llamastack.stack import Stack

if TYPE_CHECKING:
    from llamastack_metrics.exposition import Exposition

Scrape = Callable[[str, str], Awaitable["Exposition"]]
"""From the headers `Accept` and `Accept-Encoding` to the reply."""
_READ = Resource("inspect", "metrics")
_PLAIN = "text/plain; charset=utf-8"


def public_endpoint(stack: Stack, scrape: Scrape) -> AsgiApp:
    """For the server's port: a caller needs what it needs for other routes, and leave to read."""

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        if stack.access.authorizes:
            await stack.access.check(Action.READ, _READ)
        await _answer(scope, send, scrape)

    return endpoint


def private_app(path: str, scrape: Scrape) -> AsgiApp:
    """For a port of its own: it asks for no credentials, and has nothing but `path`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"cannot serve {scope['type']}")
        if scope["path"] != path:
            await _send_text(send, HTTPStatus.NOT_FOUND, f"there is nothing but {path}")
        elif scope["method"] not in ("GET", "HEAD"):
            await _send_text(send, HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes GET")
        else:
            try:
                await _answer(scope, send, scrape)
            except LlamaStackError as error:
                await _send_text(send, error.status, error.message)

    return app


async def _answer(scope: Scope, send: Send, scrape: Scrape) -> None:
    headers = {name: value.decode("latin-1") for name, value in reversed(scope["headers"])}
    reply = await scrape(headers.get(b"accept", ""), headers.get(b"accept-encoding", ""))
    encoding = [] if reply.encoding is None else [(b"content-encoding", reply.encoding.encode())]
    await _send(send, HTTPStatus.OK, reply.content_type, reply.body, encoding)


async def _send_text(send: Send, status: int, text: str) -> None:
    await _send(send, status, _PLAIN, f"{text}\n".encode())


async def _send(
    send: Send, status: int, content_type: str, body: bytes, more: list[tuple[bytes, bytes]] | None = None
) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode()), *(more or [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
