"""The route `/shared/FOLDER/FILE_ID` sends a file to a browser, which shows it instead of saving it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

from llamastack.provider.errors import LlamaStackError
from llamastack.provider.routes import Receive, Route, RouteGroup, Scope, Send

if TYPE_CHECKING:
    from llamastack_files_example.typed_calls import FilesCalls

PREFIX = "/shared/"
PATH = PREFIX + "{folder}/{file_id}"


class ProblemDetails:
    """Errors in the form of RFC 9457: https://www.rfc-editor.org/rfc/rfc9457."""

    def status(self, error: LlamaStackError) -> int:
        return error.status

    def body(self, error: LlamaStackError) -> Mapping[str, object]:
        return {"title": HTTPStatus(error.status).phrase, "status": error.status, "detail": error.message}


class SharedFile:
    """An ASGI endpoint; no web framework is needed."""

    def __init__(self, files: FilesCalls) -> None:
        self._files = files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with await self._files.download_file(**scope["path_params"]) as file:
            headers = [(b"content-type", file.media_type.encode()), (b"content-security-policy", b"sandbox")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for block in file:
                await send({"type": "http.response.body", "body": block, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def shared_files(files: FilesCalls) -> RouteGroup:
    """The routes, and the form of their errors."""
    return RouteGroup(
        [Route(PATH, SharedFile(files))],
        prefix=PREFIX,
        errors=ProblemDetails(),
        openapi=_openapi,
    )


def _openapi() -> Mapping[str, object]:
    fields = {"title": {"type": "string"}, "status": {"type": "integer"}, "detail": {"type": "string"}}
    names = ("folder", "file_id")
    operation = {
        "operationId": "shared_file",
        "summary": "Show a file.",
        "tags": ["shared files"],
        "parameters": [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names],
        "responses": {
            "200": {"description": "The file", "content": {"*/*": {"schema": {"type": "string"}}}},
            "default": {
                "description": "A problem",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        },
    }
    return {
        "paths": {PATH: {"get": operation}},
        "components": {"schemas": {"Problem": {"type": "object", "properties": fields}}},
        "tags": [{"name": "shared files"}],
    }
