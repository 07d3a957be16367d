"""The server's own routes: the OpenAPI document, made of the parts of all plugins, and a page that shows it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import anyio.to_thread
from starlette.responses import HTMLResponse, Response

from llamastack.provider.routes import AsgiApp, Receive, Route, RouteGroup, Scope, Send
from llamastack_server.api_checks import DOCUMENTATION_PATHS
from llamastack_server.docs_page import DOCS_PAGE
from llamastack_server.openapi_parts import merged_document

Fragment = Callable[[], Mapping[str, object]]


def documentation_routes(fragments: Sequence[Fragment]) -> RouteGroup:
    """`/openapi.json`, `/docs` and `/`. fragments: returns the parts of the document."""
    endpoints: tuple[AsgiApp, ...] = (_docs, _docs, _Document(fragments))
    return RouteGroup([Route(path, each) for path, each in zip(DOCUMENTATION_PATHS, endpoints, strict=True)])


class _Document:
    """The document, made at the first request, in a thread because that is slow."""

    def __init__(self, fragments: Sequence[Fragment]) -> None:
        self._fragments = fragments
        self._made: bytes | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._made is None:
            self._made = await anyio.to_thread.run_sync(self._make)
        await Response(self._made, media_type="application/json")(scope, receive, send)

    def _make(self) -> bytes:
        return json.dumps(merged_document(fragment() for fragment in self._fragments)).encode()


async def _docs(scope: Scope, receive: Receive, send: Send) -> None:
    await HTMLResponse(DOCS_PAGE)(scope, receive, send)
