"""The ASGI app of a running stack: routes derived from its APIs, one place for errors, ids and the access log."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import anyio.to_thread
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from llamastack.provider.error_translation import shortened
from llamastack.provider.errors import InternalError, LlamaStackError
from llamastack.provider.hookspecs import FinishedRequest
from llamastack.stack import Stack
from llamastack_openai_api import OPENAI_ERRORS, PREFIX, openai_endpoints
from llamastack_server.connection import App, Sender
from llamastack_server.context import REQUEST_ID_HEADER, request_id, request_id_from
from llamastack_server.docs_page import DOCS_PAGE
from llamastack_server.encoding import json_of
from llamastack_server.errors import NATIVE_ERRORS, ErrorShape, headers_for
from llamastack_server.logs import log_access
from llamastack_server.native import native_endpoint
from llamastack_server.openapi import openapi_document
from llamastack_server.origins import OriginPolicy
from llamastack_server.process_limits import ProcessLimits
from llamastack_server.requests import ClientGoneError, header_of
from llamastack_server.route_table import RouteTable

_LOGGER = logging.getLogger("llamastack.server")
_ID_HEADER = REQUEST_ID_HEADER.lower().encode()
_CLIENT_GONE = 499  # as nginx writes it; never sent


class StackApp:
    """Serves one running stack."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._finished = stack.hooks.listener("llamastack_request_finished")
        load = ProcessLimits(stack.config.run.server)
        self._routes = RouteTable()
        for path, endpoint in (("/", _docs), ("/docs", _docs), ("/openapi.json", self._send_openapi)):
            self._routes.add(path, ("GET",), endpoint, owner="the server")
        for name in stack.apis:
            for method in stack.api(name).methods.values():
                self._routes.add(
                    method.definition.web.route,
                    method.definition.web.methods,
                    native_endpoint(method, load),
                    owner=f"{name}.{method.definition.name}",
                )
        for path, by_verb in openai_endpoints(stack, load).items():
            for verb, openai_endpoint in by_verb.items():
                self._routes.add(path, (verb,), openai_endpoint, owner="/v1")
        self._openapi: bytes | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send, instead: App | None = None) -> None:
        """Answer a request, with its id, its line in the log, and errors as its path has them.

        instead: what answers in place of the route's endpoint.
        """
        if scope["type"] != "http":
            raise RuntimeError(f"cannot serve {scope['type']}")
        started = time.perf_counter()
        own_id = request_id_from(header_of(scope, _ID_HEADER))
        request_id.set(own_id)
        sender = Sender(send, (_ID_HEADER, own_id.encode()))
        try:
            await (instead or self._route)(scope, receive, sender)
        except ClientGoneError:
            sender.status = _CLIENT_GONE
        except Exception as error:
            if sender.status:
                # The head is out: the connection can only be broken off.
                raise
            await _error_response(error, shape_of(scope["path"]))(scope, receive, sender)
        finally:
            took = time.perf_counter() - started
            # As it came, percent-encoded: a decoded path could hold line breaks and forge lines of the log.
            path = scope.get("raw_path", b"?").decode("latin-1")
            log_access(scope["method"], path, sender.status, took)
            if self._finished is not None:
                self._finished(request=FinishedRequest(own_id, scope["method"], scope["path"], sender.status, took))

    async def _route(self, scope: Scope, receive: Receive, send: Sender) -> None:
        await self._routes.find(scope)(scope, receive, send)

    async def _send_openapi(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._openapi is None:
            document = await anyio.to_thread.run_sync(openapi_document, self._stack.apis)
            self._openapi = json.dumps(document).encode()
        await Response(self._openapi, media_type="application/json")(scope, receive, send)


def shape_of(path: str) -> ErrorShape:
    """How errors look for a path."""
    return OPENAI_ERRORS if f"{path}/".startswith(PREFIX) else NATIVE_ERRORS


async def _docs(scope: Scope, receive: Receive, send: Send) -> None:
    await HTMLResponse(DOCS_PAGE)(scope, receive, send)


def _error_response(error: Exception, shape: ErrorShape) -> Response:
    if not isinstance(error, LlamaStackError):
        _LOGGER.error("unexpected %s", type(error).__name__, exc_info=error)
        error = InternalError(f"unexpected {type(error).__name__}; the log has more under this request id")
    # What is wrong may be as long as the request: a name, a path, a key.
    error.reword(shortened(error.message))
    error.param = None if error.param is None else shortened(error.param)
    if error.status >= 500:
        _LOGGER.warning("%s: %s", error.code, error.message)
    return Response(
        json_of(shape.body(error)), shape.status(error), headers=headers_for(error), media_type="application/json"
    )


def create_app(stack: Stack, *, loopback: bool = False) -> ASGIApp:
    """The ASGI app of a running stack, with the middleware of its plugins around it, the first one outermost.

    loopback: whether only this machine reaches it; requests for hosts of other names are refused then.
    """
    own = StackApp(stack)
    app: Any = own
    added = [middleware for _, middleware in stack.hooks.collect("llamastack_middleware")]
    for middleware in reversed(added):
        app = middleware(app)
    return OriginPolicy(app, own, stack.config.run.server, loopback=loopback)
