"""What every endpoint reads of a request, whatever the surface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic_core
from pydantic import ValidationError
from starlette.types import Scope

from llamastack.provider.errors import InvalidRequestError
from llamastack.provider.validation import invalid_request
from llamastack.provider.validation_paths import Shape


class ClientGoneError(Exception):
    """The client went away before its reply was complete."""


_HEADERS = "llamastack.headers"


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """The headers by name (lower case); of several with one name the first."""
    headers: dict[bytes, bytes] | None = scope.get(_HEADERS)
    if headers is None:
        headers = scope[_HEADERS] = dict(reversed(scope["headers"]))
    return headers


def header_of(scope: Scope, name: bytes) -> str | None:
    """The first header called `name` (lower case), or None."""
    value = headers_of(scope).get(name)
    return None if value is None else str(value.decode("latin-1"))


def bad_request(error: ValidationError, shape: Shape, body: bytes) -> InvalidRequestError:
    """The error for a JSON body that does not fit `shape`."""
    try:
        value = json_object(body or b"{}")
    except InvalidRequestError as fault:
        return fault
    return invalid_request(error, shape, value)


def json_object(body: bytes) -> dict[str, Any]:
    """Raises InvalidRequestError for a body that is something else."""
    value = json_value(body, "the body")
    if not isinstance(value, dict):
        raise InvalidRequestError("the body must be a JSON object")
    return value


def json_value(text: bytes, what: str, param: str | None = None) -> object:
    """JSON that came with a request. what: it is, for people. Raises InvalidRequestError."""
    try:
        value: object = pydantic_core.from_json(text, allow_inf_nan=False)
    except ValueError as error:
        fault = "nested too deeply" if "recursion limit" in str(error) else "not JSON"
        raise InvalidRequestError(f"{what} is {fault}: {error}", param=param) from None
    return value


def add_once(given: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add arguments from another place of the request. Raises InvalidRequestError for an argument that is already
    there.
    """
    for name, value in more.items():
        if name in given:
            raise InvalidRequestError(f"'{name}' is given twice", param=name)
        given[name] = value
