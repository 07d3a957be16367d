"""The OpenAPI 3.1 document, derived from the API definitions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from llamastack.api.definition import API_VERSION, ApiDefinition, BodyKind, MethodDefinition, ReplyKind
from llamastack.api.files import OCTETS
from llamastack.provider import errors
from llamastack.provider.context import PROVIDER_DATA_HEADER
from llamastack_openai_api import OPENAI_ERRORS, PREFIX, ROUTES, Route
from llamastack_openai_api.schemas import ANSWERS, SCHEMAS
from llamastack_server.context import REQUEST_ID_HEADER
from llamastack_server.errors import NATIVE_ERRORS, ErrorShape

Schema = dict[str, Any]
_REF = "#/components/schemas/{model}"
_OPENAI = "openai"
_PROVIDER_DATA: dict[str, Any] = {
    "name": PROVIDER_DATA_HEADER,
    "in": "header",
    "required": False,
    "description": 'A JSON object for the providers of this request, such as keys of its own: `{"api_key": ...}`. '
    "A provider reads the fields that it knows, and says by a 400 when one is wrong. Where no provider reads any, it "
    "is passed over, whatever it holds.",
    "content": {"application/json": {"schema": {"type": "object", "additionalProperties": True}}},
}
_HEADERS: dict[str, Any] = {
    "RequestId": {
        "description": "The id of the request, which its lines in the log have: the client's own where it sent one",
        "schema": {"type": "string"},
    },
    "RetryAfter": {
        "description": "Seconds after which to ask again, where that is known",
        "schema": {"type": "integer", "minimum": 0},
    },
}
_REPEATED_LATER = {429, 503}
_ELSEWHERE = {405}
"""Of other operations than those that are described."""
_ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string", "description": "Of the kind of error, such as `object_not_found`"},
                "message": {"type": "string"},
                "provider_id": {"type": "string", "description": "The instance that it happened at"},
                "param": {"type": "string", "description": "The path of the field that is wrong"},
                "request_id": {"type": "string"},
                "retry_after": {"type": "number", "description": "Seconds"},
                "detail": {
                    "type": "object",
                    "properties": {"errors": {"type": "array", "items": {"type": "object"}}},
                },
            },
        }
    },
}


def openapi_document(apis: Mapping[str, ApiDefinition]) -> dict[str, Any]:
    """The document for these APIs, and for the routes of the OpenAI-compatible surface that they serve."""
    methods = [method for definition in apis.values() for method in definition.methods.values()]
    inputs: list[tuple[Any, JsonSchemaMode, Any]] = []
    for method in methods:
        key = (method.api, method.name)
        inputs.append(((*key, "request"), "validation", TypeAdapter(method.request_model).core_schema))
        if method.reply_kind is not ReplyKind.JSON:
            continue
        if method.result_types[0] is not None:
            inputs.append(((*key, "result"), "serialization", method.result.core_schema))
        if method.piece is not None:
            inputs.append(((*key, "piece"), "serialization", method.piece.core_schema))
    schemas, found = GenerateJsonSchema(ref_template=_REF).generate_definitions(inputs)
    definitions: dict[str, Any] = {str(name): schema for name, schema in found.items()}
    paths: dict[str, Any] = {}
    ids: set[str] = set()
    for method in methods:
        key = (method.api, method.name)
        request = schemas[((*key, "request"), "validation")]
        result, piece = (schemas.get(((*key, what), "serialization")) for what in ("result", "piece"))
        for verb in method.web.methods:
            operation = _operation(method, verb, request, definitions, _content(method, result, piece))
            if operation["operationId"] in ids:  # an API of a plugin calls a method as another API does
                operation["operationId"] = f"{method.api}_{operation['operationId']}"
            ids.add(operation["operationId"])
            paths.setdefault(method.web.route, {})[verb.lower()] = operation
    openai_paths, openai_definitions = _openai_paths(apis)
    paths |= openai_paths
    definitions |= openai_definitions
    _require_discriminators(definitions)
    return {
        "openapi": "3.1.0",
        "info": {"title": "llamastack", "version": ".".join(map(str, API_VERSION))},
        "tags": [
            *({"name": name, "description": (d.protocol.__doc__ or "").strip()} for name, d in apis.items()),
            {"name": _OPENAI, "description": "The same models and shields, for clients of OpenAI's API."},
        ],
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR_SCHEMA, **{f"OpenAI{name}": schema for name, schema in SCHEMAS.items()}}
            | definitions,
            "parameters": {"ProviderData": _PROVIDER_DATA},
            "headers": _HEADERS,
            "responses": {
                **_error_responses(NATIVE_ERRORS, "Error"),
                **_error_responses(OPENAI_ERRORS, "OpenAIError"),
            },
        },
    }


def _require_discriminators(definitions: Mapping[str, dict[str, Any]]) -> None:
    """A member of a union is told by its discriminator, which must be there although its class has a default for it."""
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
    """The classes of the error family by the status that they are answered with."""
    found: dict[int, list[type[errors.LlamaStackError]]] = {}
    for cls in vars(errors).values():
        if isinstance(cls, type) and issubclass(cls, errors.LlamaStackError) and cls is not errors.LlamaStackError:
            found.setdefault(shape.status_of(cls), []).append(cls)
    return {status: found[status] for status in sorted(found) if status not in _ELSEWHERE}


def _response_name(schema: str, status: int) -> str:
    return f"{schema}{status}"


def _error_responses(shape: ErrorShape, schema: str) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for status, classes in _by_status(shape).items():
        headers = {REQUEST_ID_HEADER: {"$ref": "#/components/headers/RequestId"}}
        if status in _REPEATED_LATER:
            headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
        first = [(cls.__doc__ or cls.__name__).strip().partition("\n")[0] for cls in classes]
        made[_response_name(schema, status)] = {
            "description": " ".join(dict.fromkeys(first)),
            "headers": headers,
            "content": {"application/json": {"schema": {"$ref": _REF.format(model=schema)}}},
        }
    return made


def _responses(content: dict[str, Any], shape: ErrorShape, schema: str, status: int = 200) -> dict[str, Any]:
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


def _event(piece: dict[str, Any], error: str, *ends: str, named: str | None = None) -> dict[str, Any]:
    """An event of a stream. ends: texts that stand in the last one instead of JSON. named: the field that names it."""
    held = {"anyOf": [piece, {"$ref": _REF.format(model=error)}]}
    data: dict[str, Any] = {"type": "string", "contentMediaType": "application/json", "contentSchema": held}
    name = {"event": {"type": "string", "description": f"The field `{named}` of `data`"}} if named else {}
    return {
        "description": "One event: its `data` is JSON. An error after the first event is an event, too, and the last.",
        "type": "object",
        "required": ["data"],
        "properties": {**name, "data": {"anyOf": [data, *({"const": end} for end in ends)]} if ends else data},
    }


def _openai_content(path: str) -> dict[str, Any]:
    whole, piece = (
        {"$ref": _REF.format(model=f"OpenAI{name}")} if name else None for name in ANSWERS.get(path, (None, None))
    )
    content: dict[str, Any] = {"application/json": {"schema": whole or {}}}
    if piece is not None:
        content["text/event-stream"] = {"schema": _event(piece, "OpenAIError", "[DONE]")}
    return content


# ---- operations ------------------------------------------------------------------------------------------------------


def _content(method: MethodDefinition, result: Schema | None, piece: Schema | None) -> Schema:
    """What a method answers, by media type."""
    web = method.web
    if method.reply_kind is not ReplyKind.JSON:
        # The media type of a file is known when it is sent.
        media_type = "*/*" if method.reply_kind is ReplyKind.FILE else web.media_type or OCTETS
        return {media_type: {"schema": {"type": "string", "format": "binary"}}}
    content: Schema = {}
    if result is not None and web.status not in (HTTPStatus.NO_CONTENT, HTTPStatus.RESET_CONTENT):
        content["application/json"] = {"schema": result}
    if piece is not None:
        content["text/event-stream"] = {"schema": _event(piece, "Error", named=web.event_field)}
    return content


def _operation(
    method: MethodDefinition, verb: str, request: Schema, definitions: Mapping[str, Schema], content: Schema
) -> Schema:
    model = definitions[request["$ref"].rpartition("/")[2]]
    properties, required = model.get("properties", {}), model.get("required", ())
    operation: Schema = {
        "tags": [method.api],
        "operationId": method.name if verb == method.web.methods[0] else f"{method.name}_{verb.lower()}",
        "summary": method.doc.partition("\n")[0],
        "description": method.doc,
        "parameters": [{"$ref": "#/components/parameters/ProviderData"}],
        "responses": _responses(content, NATIVE_ERRORS, "Error", method.web.status),
    }
    places = {"path": method.path_parameters, "query": method.query_parameters(verb)}
    for place, names in places.items():
        for name in names:
            operation["parameters"].append(
                {"name": name, "in": place, "required": name in required, "schema": properties[name]}
            )
    names, kind = method.body_parameters(verb), method.body_kind(verb)
    if kind is BodyKind.BYTES:
        content = {OCTETS: {"schema": {"type": "string", "format": "binary"}}}
        operation["requestBody"] = {"required": names[0] in required, "content": content}
    elif names or (kind is BodyKind.JSON and not method.parameters):
        whole = len(names) == len(method.parameters)
        inner = {
            "type": "object",
            "properties": {name: properties[name] for name in names},
            "required": [name for name in names if name in required],
            "additionalProperties": False,
        }
        media_type = "multipart/form-data" if kind is BodyKind.FORM else "application/json"
        operation["requestBody"] = {
            "required": whole or bool(inner["required"]),
            "content": {media_type: {"schema": request if whole else inner}},
        }
    return operation


def _openai_paths(apis: Mapping[str, ApiDefinition]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Paths and schemas. Some of OpenAI's types are called as native ones are: theirs have a prefix."""
    routes = [route for route in ROUTES if route.api in apis]
    inputs: list[tuple[str, JsonSchemaMode, Any]] = [
        (route.path, "validation", route.request.core_schema) for route in routes if route.request is not None
    ]
    schemas, found = GenerateJsonSchema(ref_template=_REF.format(model="OpenAI{model}")).generate_definitions(inputs)
    paths: dict[str, Any] = {}
    for route in routes:
        operation = _openai_operation(route, schemas.get((route.path, "validation")))
        paths.setdefault(PREFIX + route.path, {})[route.http_method.lower()] = operation
    return paths, {f"OpenAI{name}": schema for name, schema in found.items()}


def _openai_operation(route: Route, request: dict[str, Any] | None) -> dict[str, Any]:
    """OpenAI's own reference describes the answers in full."""
    operation: dict[str, Any] = {
        "tags": [_OPENAI],
        "operationId": f"openai_{route.method}",
        "summary": f"OpenAI's /{route.path}, by {route.api}.{route.method}",
        "externalDocs": {"url": route.reference},
        "parameters": [
            {"$ref": "#/components/parameters/ProviderData"},
            *(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in re.findall(r"{(\w+)}", route.path)
            ),
        ],
        "responses": _responses(_openai_content(route.path), OPENAI_ERRORS, "OpenAIError"),
    }
    if request is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": request}}}
    return operation
