"""What a plugin adds to an HTTP server: routes, static files, a form of errors, middleware. It needs no web framework.

Format of endpoints: https://asgi.readthedocs.io/en/latest/specs/www.html.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from llamastack.provider.errors import LlamaStackError

__all__ = [
    "ACCESS_ORDER",
    "DEFAULT_ORDER",
    "HOST_CHECK_ORDER",
    "METHODS",
    "AsgiApp",
    "AsgiMessage",
    "ErrorFormat",
    "Middleware",
    "Receive",
    "Route",
    "RouteGroup",
    "Scope",
    "Send",
]

Scope = MutableMapping[str, Any]
"""What a server knows of a request."""
AsgiMessage = MutableMapping[str, Any]
"""A part of a request or of a response."""
Receive = Callable[[], Awaitable[AsgiMessage]]
"""Waits for the next part of the request."""
Send = Callable[[AsgiMessage], Awaitable[None]]
"""Sends the next part of the response."""
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
"""Answers a request."""

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
"""The HTTP methods of routes. A GET route answers HEAD as well."""
DEFAULT_ORDER = 500
"""The order of middleware that names none."""
HOST_CHECK_ORDER = 100
"""The order of the server's own check of the headers `Host` and `Origin`."""
ACCESS_ORDER = 200
"""The order of the middleware that asks plugins who makes a request."""


class ErrorFormat(Protocol):
    """How errors look on the wire."""

    def status(self, error: LlamaStackError) -> int:
        """The HTTP status."""

    def body(self, error: LlamaStackError) -> Mapping[str, object]:
        """The JSON body."""


@dataclass(frozen=True)
class Route:
    """One path of the server.

    path: absolute. `{name}` stands for one segment, and `{name:path}` at the end for the rest of the path, slashes
        included; the endpoint finds the values in `scope["path_params"]`.
    endpoint: ASGI app that answers. An error of `llamastack.provider.errors` that it raises is sent in its form.
    methods: HTTP methods that it answers; see `METHODS`.
    """

    path: str
    endpoint: AsgiApp
    methods: tuple[str, ...] = ("GET",)

    def __post_init__(self) -> None:
        if not self.path.startswith("/"):
            raise ValueError(f"the path of a route must begin with '/': {self.path!r}")
        unknown = [method for method in self.methods if method not in METHODS]
        if unknown or not self.methods:
            raise ValueError(f"{self.path}: methods {unknown} are not allowed; allowed: {', '.join(METHODS)}")


@dataclass(frozen=True)
class RouteGroup:
    """The routes of one surface.

    routes: its routes.
    files: folders by the path that their files are served below.
    prefix, errors: the form of errors for every path below `prefix`, such as `/v1/`; without `errors` the native form.
    openapi: gives the part of the OpenAPI document that describes the routes, such as `{"paths": ..., "components":
        ..., "tags": ...}`. It is called once, in a thread, when somebody first asks for the document.
    label: what the routes are of, for the error where somebody else has one of them.
    """

    routes: Sequence[Route] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    prefix: str = "/"
    errors: ErrorFormat | None = None
    openapi: Callable[[], Mapping[str, object]] | None = None
    label: str = ""


@dataclass(frozen=True)
class Middleware:
    """ASGI middleware around every route.

    factory: takes an app and gives the app around it. What it raises is sent as an error, in the form for the path.
    order: the lowest number is outermost; of equal ones the plugin that is called first. Below `HOST_CHECK_ORDER` it
        sees requests that the server then refuses because of their `Host` or `Origin`.
    """

    factory: Callable[[AsgiApp], AsgiApp]
    order: int = DEFAULT_ORDER
