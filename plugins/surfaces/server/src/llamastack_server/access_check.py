"""Finds the principal and the deadline of a request, before plugins' middleware and the routes."""

from __future__ import annotations

from llamastack.provider.context import current_context, use_context
from llamastack.provider.errors import LlamaStackError
from llamastack.provider.hookspecs import OPEN_ROUTE
from llamastack.provider.routes import AsgiApp, Receive, Scope, Send
from llamastack.stack.access import AccessControl
from llamastack_server.context import incoming, with_deadline
from llamastack_server.error_replies import send_error


class AccessCheck:
    """Middleware that puts the principal and the deadline into the request's context, or refuses the request."""

    def __init__(self, app: AsgiApp, access: AccessControl) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            context = with_deadline(scope)
            if self._access.authenticates and scope["path"] != OPEN_ROUTE:
                context = context.replaced(principal=await self._access.authenticate(incoming(scope)))
        except LlamaStackError as error:
            await send_error(error, scope, receive, send)
            return
        if context is current_context():
            await self._app(scope, receive, send)
            return
        with use_context(context):
            await self._app(scope, receive, send)
