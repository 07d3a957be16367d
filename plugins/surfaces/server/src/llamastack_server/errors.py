"""The native form of errors, and what all forms share."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

from llamastack.http import sse
from llamastack.provider.context import current_context
from llamastack.provider.errors import AuthenticationError, LlamaStackError, MethodNotAllowedError
from llamastack.provider.routes import ErrorFormat
from llamastack_server.context import REQUEST_ID_HEADER
from llamastack_server.encoding import json_of


class ErrorShape:
    """The native shape: `{"error": {"code", "message", "provider_id"?, "param"?, "request_id", ...}}`."""

    def status(self, error: LlamaStackError) -> int:
        """The HTTP status."""
        return self.status_of(type(error))

    def status_of(self, cls: type[LlamaStackError]) -> int:
        """The HTTP status of all errors of a class."""
        return cls.status

    def body(self, error: LlamaStackError) -> dict[str, Any]:
        """The JSON of an error reply, with the id of the current request."""
        return error.to_wire(current_context().request_id)

    def event(self, error: LlamaStackError) -> bytes:
        """An error as the last event of a stream."""
        return sse.encode(json_of(self.body(error)))


NATIVE_ERRORS = ErrorShape()


def headers_for(error: LlamaStackError) -> dict[str, str]:
    """The headers of an error in every form: when to retry, how to authenticate, which methods are allowed."""
    headers: dict[str, str] = {}
    wait = error.retry_after
    if wait is not None:
        headers["Retry-After"] = str(max(1, math.ceil(wait)))
        if wait != int(wait):
            headers["retry-after-ms"] = str(round(wait * 1000))  # OpenAI's clients obey it
    if error.should_retry is not None:
        headers["x-should-retry"] = "true" if error.should_retry else "false"
    if (
        isinstance(error, AuthenticationError) and error.provider_id is None
    ):  # otherwise the error is about the backend's key
        headers["WWW-Authenticate"] = error.challenge
    if isinstance(error, MethodNotAllowedError):
        headers["Allow"] = ", ".join(error.allowed)
    return headers


def last_reply(error: LlamaStackError, shape: ErrorFormat) -> bytes:
    """A whole reply, head and body, after which the connection is closed: for a request that reaches no endpoint."""
    body = json_of(shape.body(error))
    status = HTTPStatus(shape.status(error))
    head = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        REQUEST_ID_HEADER.lower(): current_context().request_id or "",
        **headers_for(error),
    }
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in head.items())]
    return "\r\n".join((*lines, "", "")).encode() + body
