"""How errors look on the wire: each surface has its own shape for the one family."""

from __future__ import annotations

from typing import Any

from llamastack.provider.errors import LlamaStackError
from llamastack.server.context import request_id
from llamastack.server.encoding import event_of, json_of


class ErrorShape:
    """The native shape: `{"error": {"code", "message", "provider_id"?, "param"?, "request_id", ...}}`."""

    def status(self, error: LlamaStackError) -> int:
        """The HTTP status."""
        return error.status

    def body(self, error: LlamaStackError) -> dict[str, Any]:
        """The JSON of an error response, with the id of the current request."""
        return error.to_wire(request_id.get())

    def event(self, error: LlamaStackError) -> bytes:
        """The same as the last event of a stream that has begun."""
        return event_of(json_of(self.body(error)))


NATIVE_ERRORS = ErrorShape()
