"""OpenAPI 3.1: the parts that surfaces share, and the whole document."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from llamastack.api.definition import API_VERSION
from llamastack.provider import errors
from llamastack.provider.context import PROVIDER_DATA_HEADER
from llamastack_server.context import REQUEST_ID_HEADER
from llamastack_server.errors import ErrorShape

_LOGGER = logging.getLogger("llamastack.server")
REFERENCE = "#/components/schemas/{model}"
_PROVIDER_DATA: dict[str, Any] = {
    "name": PROVIDER_DATA_HEADER,
    "in": "header",
    "required": False,
    "description": 'A JSON object for the providers of this request, such as keys of its own: `{"api_key": ...}`. '
    "A provider reads the fields that it knows, and a wrong field is a 400. If no provider reads the header, it "
    "is ignored.",
    "content": {"application/json": {"schema": {"type": "object", "additionalProperties": True}}},
}
_HEADERS: dict[str, Any] = {
    "RequestId": {
        "description": "The id of the request, as in its lines of the log: the client's own if it sent one",
        "schema": {"type": "string"},
    },
    "RetryAfter": {
        "description": "Seconds after which to retry, if known",
        "schema": {"type": "integer", "minimum": 0},
    },
}
_REPEATED_LATER = {429, 503}
_ELSEWHERE = {405}
"""The ids of operations other than the described ones."""


def merged_document(fragments: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The whole document. If two components or operations with one name differ, the first is kept."""
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "llamastack", "version": ".".join(map(str, API_VERSION))},
        "tags": [],
        "paths": {},
        "components": {
            "schemas": {},
            "responses": {},
            "parameters": {"ProviderData": _PROVIDER_DATA},
            "headers": _HEADERS,
        },
    }
    for fragment in fragments:
        document["tags"] += [tag for tag in fragment.get("tags", ()) if tag not in document["tags"]]
        for path, item in fragment.get("paths", {}).items():
            _take_in(document["paths"].setdefault(path, {}), item, path)
        for kind, named in fragment.get("components", {}).items():
            _take_in(document["components"].setdefault(kind, {}), named, f"components.{kind}")
    return document


def _take_in(into: dict[str, Any], added: Mapping[str, Any], where: str) -> None:
    for name, value in added.items():
        if into.setdefault(name, value) != value:
            _LOGGER.warning("the OpenAPI document has two different '%s' in %s; the first is kept", name, where)


def require_discriminators(definitions: Mapping[str, dict[str, Any]]) -> None:
    """The discriminator identifies a member of a union, so it is required although its class has a default for it."""
    for schema in _all_in(definitions):
        discriminator = schema.get("discriminator")
        if not isinstance(discriminator, dict) or "oneOf" not in schema:
            continue
        for member in schema["oneOf"]:
            required = definitions[member["$ref"].rpartition("/")[2]].setdefault("required", [])
            if discriminator["propertyName"] not in required:
                required.append(discriminator["propertyName"])


def _all_in(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, Mapping):
        if isinstance(value, dict):
            yield value
        for inside in value.values():
            yield from _all_in(inside)
    elif isinstance(value, list):
        for inside in value:
            yield from _all_in(inside)


# ---- errors ----------------------------------------------------------------------------------------------------------


def _by_status(shape: ErrorShape) -> dict[int, list[type[errors.LlamaStackError]]]:
    """The classes of the error family by their HTTP status."""
    found: dict[int, list[type[errors.LlamaStackError]]] = {}
    for cls in vars(errors).values():
        if isinstance(cls, type) and issubclass(cls, errors.LlamaStackError) and cls is not errors.LlamaStackError:
            found.setdefault(shape.status_of(cls), []).append(cls)
    return {status: found[status] for status in sorted(found) if status not in _ELSEWHERE}


def _response_name(schema: str, status: int) -> str:
    return f"{schema}{status}"


def error_responses(shape: ErrorShape, schema: str) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for status, classes in _by_status(shape).items():
        headers = {REQUEST_ID_HEADER: {"$ref": "#/components/headers/RequestId"}}
        if status in _REPEATED_LATER:
            headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
        first = [(cls.__doc__ or cls.__name__).strip().partition("\n")[0] for cls in classes]
        made[_response_name(schema, status)] = {
            "description": " ".join(dict.fromkeys(first)),
            "headers": headers,
            "content": {"application/json": {"schema": {"$ref": REFERENCE.format(model=schema)}}},
        }
    return made


def operation_responses(content: dict[str, Any], shape: ErrorShape, schema: str, status: int = 200) -> dict[str, Any]:
    answered = {
        "description": HTTPStatus(status).phrase,
        "headers": {REQUEST_ID_HEADER: {"$ref": "#/components/headers/RequestId"}},
    }
    return {
        str(status): answered | ({"content": content} if content else {}),
        **{
            str(status): {"$ref": f"#/components/responses/{_response_name(schema, status)}"}
            for status in _by_status(shape)
        },
    }


# ---- answers ---------------------------------------------------------------------------------------------------------


def event_schema(piece: dict[str, Any], error: str, *ends: str, named: str | None = None) -> dict[str, Any]:
    """An event of a stream. ends: texts of the last one instead of JSON. named: the field with the event's name."""
    held = {"anyOf": [piece, {"$ref": REFERENCE.format(model=error)}]}
    data: dict[str, Any] = {"type": "string", "contentMediaType": "application/json", "contentSchema": held}
    name = {"event": {"type": "string", "description": f"The field `{named}` of `data`"}} if named else {}
    return {
        "description": "One event: its `data` is JSON. An error after the first event is an event, too, and the last.",
        "type": "object",
        "required": ["data"],
        "properties": {**name, "data": {"anyOf": [data, *({"const": end} for end in ends)]} if ends else data},
    }
