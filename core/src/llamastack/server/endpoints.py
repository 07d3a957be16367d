"""One HTTP endpoint per web method: read and validate the request, call, write the reply."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl

import anyio
from pydantic import ValidationError
from starlette.types import Message, Receive, Scope, Send

from llamastack.provider.errors import (
    InternalError,
    InvalidRequestError,
    LlamaStackError,
    ProviderUnavailableError,
    RequestTooLargeError,
)
from llamastack.provider.handles import ApiMethod
from llamastack.provider.request_data import PROVIDER_DATA_HEADER, parse_provider_data, provider_data
from llamastack.provider.streams import closing
from llamastack.provider.validation import invalid_request
from llamastack.server.context import request_id

_LOGGER = logging.getLogger("llamastack.server")
_PROVIDER_DATA = PROVIDER_DATA_HEADER.lower().encode()
_JSON = (b"content-type", b"application/json")
_EVENT_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class ClientGoneError(Exception):
    """The client went away before its reply was complete."""


def header_of(scope: Scope, name: bytes) -> str | None:
    """The first header called `name` (lower case), or None."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body.

    Raises RequestTooLargeError as soon as it is known to be over `limit` bytes, ClientGoneError.
    """
    too_large = RequestTooLargeError(f"the body is over the limit of {limit} bytes")
    announced = header_of(scope, b"content-length")
    if announced is not None and announced.isdigit() and int(announced) > limit:
        raise too_large
    blocks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        block = message.get("body", b"")
        size += len(block)
        if size > limit:
            raise too_large
        blocks.append(block)
        if not message.get("more_body", False):
            return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def read_arguments(method: ApiMethod, body: bytes, query: bytes) -> dict[str, Any]:
    """The arguments that a request gives, from its JSON body and its query.

    Raises InvalidRequestError naming the path of the first fault.
    """
    model = method.definition.request_model
    if not query:
        try:
            return model.model_validate_json(body or b"{}").arguments()
        except ValidationError as error:
            raise _bad_request(error, body) from None
    given: dict[str, Any] = {}
    if body:
        given.update(_json_object(body))
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name in method.definition.list_parameters:
            given.setdefault(name, []).append(value)
            continue
        if name in given:
            raise InvalidRequestError(f"'{name}' is given twice", param=name)
        given[name] = value
    try:
        return model.model_validate(given).arguments()
    except ValidationError as error:
        raise invalid_request(error, given) from None


def _bad_request(error: ValidationError, body: bytes) -> InvalidRequestError:
    try:
        return invalid_request(error, _json_object(body or b"{}"))
    except InvalidRequestError as fault:
        return fault


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError as error:
        raise InvalidRequestError(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise InvalidRequestError("the body is nested too deeply") from None
    if not isinstance(value, dict):
        raise InvalidRequestError("the body must be a JSON object")
    return value


# Characters that some clients take for the end of a line, though JSON may hold them and SSE knows only CR and LF.
_LINE_ENDS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))


def _one_line(data: bytes) -> bytes:
    for raw, escaped in _LINE_ENDS:
        data = data.replace(raw, escaped)
    return data


def _error_event(error: LlamaStackError) -> bytes:
    return b"data: %b\n\n" % json.dumps(error.to_wire(request_id.get())).encode()


class Endpoint:
    """An ASGI app for one method of one API."""

    def __init__(self, method: ApiMethod, max_body_bytes: int) -> None:
        self.method = method
        self.methods = frozenset(method.definition.web.methods)
        self._max_body_bytes = max_body_bytes
        self._result = method.definition.result
        self._piece = method.definition.piece

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, self._max_body_bytes)
        arguments = read_arguments(self.method, body, scope["query_string"])
        header = header_of(scope, _PROVIDER_DATA)
        with provider_data(None if header is None else parse_provider_data(header)):
            await self._call(arguments, receive, send)

    async def _call(self, arguments: dict[str, Any], receive: Receive, send: Send) -> None:
        failure: Exception | None = None
        gone = started = answered = False
        group = anyio.create_task_group()

        async def watch() -> None:
            nonlocal gone
            while (await receive())["type"] != "http.disconnect":
                pass
            gone = not answered  # servers say "disconnect" after a complete reply too
            group.cancel_scope.cancel()

        async def send_on(message: Message) -> None:
            nonlocal started, answered
            started = True
            answered = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        try:
            async with group:
                group.start_soon(watch)
                try:
                    await self._answer(arguments, send_on)
                except Exception as error:  # raised below, outside the group, so that it is not wrapped
                    failure = error
                group.cancel_scope.cancel()
        except anyio.get_cancelled_exc_class():
            # Not by the client: the time that requests have to finish after a signal is over.
            if gone or answered:
                raise
            failure = ProviderUnavailableError("the server is stopping")
            if started:
                await send({"type": "http.response.body", "body": _error_event(failure)})
                return
        if gone:
            raise ClientGoneError
        if failure is not None:
            raise failure

    async def _answer(self, arguments: dict[str, Any], send: Send) -> None:
        result = await self.method.dispatch(arguments)
        if isinstance(result, AsyncIterator):
            await self._stream(result, send)
            return
        body = self._dump(self._result, result)
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [_JSON, (b"content-length", b"%d" % len(body))],
            }
        )
        await send({"type": "http.response.body", "body": body})

    def _dump(self, adapter: Any, value: Any) -> bytes:
        try:
            dumped: bytes = adapter.dump_json(value, exclude_none=True, warnings="error")
        except Exception as error:
            definition = self.method.definition
            raise InternalError(
                f"the provider's reply to {definition.api}.{definition.name} is not what the API says it is"
            ) from error
        return dumped

    async def _stream(self, pieces: AsyncIterator[Any], send: Send) -> None:
        async with closing(pieces):
            await self._send_pieces(pieces, send)

    async def _send_pieces(self, pieces: AsyncIterator[Any], send: Send) -> None:
        adapter = self._piece
        started = False
        try:
            async for piece in pieces:
                data = b"data: %b\n\n" % _one_line(self._dump(adapter, piece))
                if not started:
                    # Only now: a failure before the first piece is still answered with its own status.
                    started = True
                    await send({"type": "http.response.start", "status": 200, "headers": list(_EVENT_STREAM)})
                await send({"type": "http.response.body", "body": data, "more_body": True})
        except LlamaStackError as error:
            if not started:
                raise
            _LOGGER.warning("stream broken off: %s", error.message)
            await send({"type": "http.response.body", "body": _error_event(error), "more_body": True})
        if not started:
            await send({"type": "http.response.start", "status": 200, "headers": list(_EVENT_STREAM)})
        await send({"type": "http.response.body", "body": b""})
