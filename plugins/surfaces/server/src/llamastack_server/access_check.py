"""Finds the principal and the deadline of a request, before plugins' middleware and the routes."""

from __future__ import annotations

from llamastack.provider.context import use_context
from llamastack.provider.errors import LlamaStackError
from llamastack.provider.hookspecs import OPEN_ROUTES
from llamastack.provider.routes import AsgiApp, Receive, Scope, Send
from llamastack.stack.access import AccessControl
from llamastack_server.context import deadline_of, incoming
from llamastack_server.error_replies import send_error


class AccessCheck:
    """Middleware that puts the principal and the deadline into the request's context, or refuses the request."""

    def __init__(self, app: AsgiApp, access: AccessControl) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal = None
        try:
            deadline = deadline_of(scope)
            if self._access.authenticates and scope["path"] not in OPEN_ROUTES:
                principal = await self._access.authenticate(incoming(scope))
        except LlamaStackError as error:
            await send_error(error, scope, receive, send)
            return
        if principal is None and deadline is None:
            await self._app(scope, receive, send)
            return
        with use_context(principal=principal, deadline=deadline):
            await self._app(scope, receive, send)
