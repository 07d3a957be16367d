"""The ASGI app of a running stack: request ids and the access log, then middleware in order, then the routes."""

from __future__ import annotations

import time

from llamastack.provider.context import use_context
from llamastack.provider.hookspecs import FinishedRequest
from llamastack.provider.routes import (
    AsgiApp,
    ErrorFormat,
    Receive,
    Scope,
    Send,
)
from llamastack.stack import Stack
from llamastack_server.collected_routes import SERVER, router_of
from llamastack_server.context import REQUEST_ID_HEADER, Spans, request_context
from llamastack_server.error_replies import send_error
from llamastack_server.logs import log_access
from llamastack_server.plugin import llamastack_middleware
from llamastack_server.process_limits import ProcessLimits
from llamastack_server.requests import ClientGoneError
from llamastack_server.route_table import ROUTE
from llamastack_server.scope_state import STATE, ServerState
from llamastack_server.sender import Sender
from llamastack_server.settings import ServerConfig

_ID_HEADER = REQUEST_ID_HEADER.lower().encode()
_CLIENT_GONE = 499  # as nginx writes it; never sent


class StackApp:
    """Serves one running stack.

    loopback: whether only this machine can reach it; then requests for other host names are refused.
    Raises DiscoveryError where two plugins claim a route, PluginError where a plugin fails.
    """

    def __init__(self, stack: Stack, *, loopback: bool) -> None:
        self._finished = stack.hooks.listener("llamastack_request_finished")
        self._begin_span = stack.hooks.begin_span()
        settings = stack.config.section("server", ServerConfig)
        router = router_of(stack)
        self._state = ServerState(ProcessLimits(settings), router.format_for, loopback)
        middleware = stack.hooks.collect("llamastack_middleware", stack, required=True)
        if not any(plugin.startswith(f"{SERVER}:") for plugin, _ in middleware):
            # Whoever switches the server's own plugin off means its routes. Hosts and principals are still checked.
            middleware = [*((SERVER, each) for each in llamastack_middleware(stack)), *middleware]
        self._app: AsgiApp = router
        for each in sorted((each for _, each in middleware), key=lambda each: each.order)[::-1]:
            self._app = each.factory(self._app)

    def format_for(self, path: str) -> ErrorFormat:
        """How errors look for a path."""
        return self._state.format_for(path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, with its id and its line in the log."""
        if scope["type"] != "http":
            raise RuntimeError(f"cannot serve {scope['type']}")
        started = time.perf_counter()
        context, spans = request_context(scope, self._begin_span)
        with use_context(context):
            await self._answer(scope, receive, send, context.request_id or "", started, spans)

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        own_id: str,
        started: float,
        spans: Spans,
    ) -> None:
        scope[STATE] = self._state
        sender = Sender(send, (_ID_HEADER, own_id.encode()))
        try:
            await self._app(scope, receive, sender)
        except ClientGoneError:
            sender.give_up(_CLIENT_GONE)
        except Exception as error:
            if sender.status:
                # The head is out: the connection can only be broken off.
                raise
            await send_error(error, scope, receive, sender)
        finally:
            took = time.perf_counter() - started
            # The path stays percent-encoded: a decoded path could hold line breaks and forge lines of the log.
            path = scope.get("raw_path", b"?").decode("latin-1")
            log_access(scope["method"], path, sender.status, took)
            if self._finished is not None:
                route = scope.get(ROUTE)
                self._finished(
                    FinishedRequest(own_id, scope["method"], scope["path"], sender.status, took, route, *spans)
                )


def create_app(stack: Stack, *, loopback: bool = False) -> StackApp:
    """The ASGI app of a running stack. See `StackApp`."""
    return StackApp(stack, loopback=loopback)
