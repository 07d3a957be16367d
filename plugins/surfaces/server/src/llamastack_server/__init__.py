"""A running stack over HTTP.

Surfaces and tests of other packages may use the names in `__all__`; each is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamastack.lazy_imports import lazy_getattr

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
    "event_schema",
    "json_object",
    "json_of",
    "operation_responses",
    "refuse_routes",
    "require_discriminators",
    "send_error",
]

if TYPE_CHECKING:
    from llamastack_server.api_checks import refuse_routes
    from llamastack_server.app import create_app
    from llamastack_server.context import REQUEST_ID_HEADER
    from llamastack_server.encoding import json_of
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
else:
    __getattr__ = lazy_getattr(
        __name__,
        (
            ".settings",
            ".errors",
            ".sender",
            ".api_checks",
            ".requests",
            ".encoding",
            ".context",
            ".error_replies",
            ".endpoint",
            ".openapi_parts",
            ".app",
        ),
        __all__,
    )
