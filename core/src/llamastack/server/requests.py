"""What every endpoint reads of a request, whatever the surface."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError
from starlette.types import Receive, Scope

from llamastack.provider.errors import InvalidRequestError, PermissionDeniedError, RequestTooLargeError
from llamastack.provider.validation import invalid_request
from llamastack.provider.validation_paths import Shape


class ClientGoneError(Exception):
    """The client went away before its reply was complete."""


_HEADERS = "llamastack.headers"


def header_of(scope: Scope, name: bytes) -> str | None:
    """The first header called `name` (lower case), or None."""
    headers = scope.get(_HEADERS)
    if headers is None:
        headers = scope[_HEADERS] = dict(reversed(scope["headers"]))
    value = headers.get(name)
    return None if value is None else str(value.decode("latin-1"))


def refuse_other_sites(scope: Scope) -> None:
    """A browser says where a page came from; a page of another site must not write to a stack on this machine.

    Raises PermissionDeniedError.
    """
    origin = header_of(scope, b"origin")
    if origin is not None and origin.partition("://")[2] != header_of(scope, b"host"):
        raise PermissionDeniedError(f"requests from pages of {origin} are refused")


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body.

    Raises RequestTooLargeError as soon as it is known to be over `limit` bytes, ClientGoneError.
    """
    announced = header_of(scope, b"content-length")
    if announced is not None and announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    blocks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        block = message.get("body", b"")
        size += len(block)
        if size > limit:
            raise _too_large(limit)
        blocks.append(block)
        if not message.get("more_body", False):
            return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def _too_large(limit: int) -> RequestTooLargeError:
    return RequestTooLargeError(f"the body is over the limit of {limit} bytes")


def bad_request(error: ValidationError, shape: Shape, body: bytes) -> InvalidRequestError:
    """The error for a JSON body that does not fit `shape`."""
    try:
        json_object(body or b"{}")
    except InvalidRequestError as fault:
        return fault
    return invalid_request(error, shape)


def json_object(body: bytes) -> dict[str, Any]:
    """Raises InvalidRequestError for a body that is something else."""
    try:
        value = json.loads(body)
    except ValueError as error:
        raise InvalidRequestError(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise InvalidRequestError("the body is nested too deeply") from None
    if not isinstance(value, dict):
        raise InvalidRequestError("the body must be a JSON object")
    return value
