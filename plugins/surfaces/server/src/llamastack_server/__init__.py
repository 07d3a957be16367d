"""A running stack over HTTP.

Surfaces and tests of other packages may use the names in `__all__`; each is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamastack_server.app import create_app
    from llamastack_server.context import REQUEST_ID_HEADER
    from llamastack_server.encoding import event_of, json_of
    from llamastack_server.endpoint import EVENT_STREAM, Endpoint, Reply
    from llamastack_server.error_replies import send_error
    from llamastack_server.errors import NATIVE_ERRORS, ErrorShape
    from llamastack_server.openapi_parts import (
        REFERENCE,
        error_responses,
        event_schema,
        operation_responses,
        require_discriminators,
    )
    from llamastack_server.requests import json_object
    from llamastack_server.sender import JSON
    from llamastack_server.settings import ServerConfig

_LAZY = {
    "EVENT_STREAM": "endpoint",
    "Endpoint": "endpoint",
    "ErrorShape": "errors",
    "JSON": "sender",
    "NATIVE_ERRORS": "errors",
    "REFERENCE": "openapi_parts",
    "REQUEST_ID_HEADER": "context",
    "Reply": "endpoint",
    "ServerConfig": "settings",
    "create_app": "app",
    "error_responses": "openapi_parts",
    "event_of": "encoding",
    "event_schema": "openapi_parts",
    "json_object": "requests",
    "json_of": "encoding",
    "operation_responses": "openapi_parts",
    "require_discriminators": "openapi_parts",
    "send_error": "error_replies",
}

__all__ = [
    "EVENT_STREAM",
    "JSON",
    "NATIVE_ERRORS",
    "REFERENCE",
    "REQUEST_ID_HEADER",
    "Endpoint",
    "ErrorShape",
    "Reply",
    "ServerConfig",
    "create_app",
    "error_responses",
    "event_of",
    "event_schema",
    "json_object",
    "json_of",
    "operation_responses",
    "require_discriminators",
    "send_error",
]


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'llamastack_server' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"llamastack_server.{module}"), name)
    globals()[name] = found
    return found
