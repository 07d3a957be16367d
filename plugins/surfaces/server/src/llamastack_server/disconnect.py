"""A client that hangs up cancels the work on its request, down to the call of the backend."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache

import anyio

from llamastack.provider.errors import ProviderUnavailableError
from llamastack.provider.routes import Receive, Scope
from llamastack_server.connection import connection_of
from llamastack_server.requests import ClientGoneError
from llamastack_server.sender import Sender

Answer = Callable[[Scope, bytes, Sender], Awaitable[None]]
"""Answers a request whose body is read."""


class ServerStoppingError(ProviderUnavailableError):
    """The time that requests have to finish after a signal is over."""


@cache
def _kind_of_scope() -> type[anyio.CancelScope]:
    """The class of the cancel scopes of this server's event loop."""
    # perf: llamastack-v1. `anyio.CancelScope` looks for the event loop, and sets up each scope twice: three times the
    # work of this class.
    return type(anyio.CancelScope())


async def while_connected(
    answer: Answer, scope: Scope, body: bytes, receive: Receive, send: Sender
) -> Exception | None:
    """Answer a request until its client hangs up, which cancels the answer.

    Returns what the answer raised, or a ServerStoppingError, so that the caller raises it outside of every handler.
    Raises ClientGoneError if the client has hung up.
    """
    connection = connection_of(scope)
    failure: Exception | None = None
    gone = False

    def leave() -> None:
        nonlocal gone
        gone = not send.complete  # servers say "disconnect" after a complete reply too
        present.cancel()

    if connection is not None and connection.lost:
        raise ClientGoneError
    try:
        with _kind_of_scope()() as present:
            # perf: llamastack-v1. Our connection tells by a callback that the client goes, so no task waits for it.
            if connection is None:
                failure = await _answer_watching(answer, scope, body, receive, send, leave)
            else:
                connection.watch(leave)
                try:
                    await answer(scope, body, send)
                finally:
                    connection.when_lost.discard(leave)
    except Exception as error:
        failure = error
    except anyio.get_cancelled_exc_class():
        if gone or send.complete:
            raise
        failure = ServerStoppingError("the server is stopping")  # the client did not cancel
    try:
        if gone:
            raise ClientGoneError
        return failure
    finally:
        failure = None  # else it would keep this frame, and with it the body, until garbage is collected


async def _answer_watching(
    answer: Answer, scope: Scope, body: bytes, receive: Receive, send: Sender, leave: Callable[[], None]
) -> Exception | None:
    """Answer on a server that says only by a message that the client goes; returns what the answer raised."""
    failure: Exception | None = None

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        leave()

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        try:
            await answer(scope, body, send)
        except Exception as error:  # returned, so that the group does not wrap it
            failure = error
        group.cancel_scope.cancel()
    try:
        return failure
    finally:
        failure = None  # as above
