"""Errors as whole responses: for routes, and for middleware that refuses a request."""

from __future__ import annotations

import logging

from starlette.responses import Response

from llamastack.provider.error_translation import shortened
from llamastack.provider.errors import InternalError, LlamaStackError
from llamastack.provider.routes import Receive, Scope, Send
from llamastack_server.encoding import json_of
from llamastack_server.errors import headers_for
from llamastack_server.scope_state import state_of

_LOGGER = logging.getLogger("llamastack.server")


async def send_error(error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request with an error, in the form for its path.

    An error that is not of `llamastack.provider.errors` goes to the log with its traceback; the client gets a 500 that
    names only its type.
    """
    if not isinstance(error, LlamaStackError):
        _LOGGER.error("unexpected %s", type(error).__name__, exc_info=error)
        error = InternalError(f"unexpected {type(error).__name__}; the log has more under this request id")
    # The wrong value can be as long as the request: a name, a path, a key.
    error.amend(shortened(error.message), param=None if error.param is None else shortened(error.param))
    if error.status >= 500:
        _LOGGER.warning("%s: %s", error.code, error.message)
    form = state_of(scope).format_for(scope["path"])
    response = Response(
        json_of(form.body(error)), form.status(error), headers=headers_for(error), media_type="application/json"
    )
    await response(scope, receive, send)
