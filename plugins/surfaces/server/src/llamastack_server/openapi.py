"""The part of the OpenAPI document that follows from the API definitions."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from llamastack.api.base import JsonObject
from llamastack.api.definition import ApiDefinition, BodyKind, MethodDefinition, ReplyKind
from llamastack.api.files import OCTETS
from llamastack.api.schema import Schema
from llamastack_server.errors import NATIVE_ERRORS
from llamastack_server.openapi_parts import (
    REFERENCE,
    error_responses,
    event_schema,
    operation_responses,
    require_discriminators,
)

_ERROR_SCHEMA: JsonObject = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string", "description": "The kind of error, such as `object_not_found`"},
                "message": {"type": "string"},
                "provider_id": {"type": "string", "description": "The instance that failed"},
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


def native_openapi(apis: Mapping[str, ApiDefinition]) -> dict[str, Any]:
    """The part of the OpenAPI document that describes the routes of these APIs."""
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
    schemas, found = GenerateJsonSchema(ref_template=REFERENCE).generate_definitions(inputs)
    definitions: dict[str, Any] = {str(name): schema for name, schema in found.items()}
    paths: dict[str, Any] = {}
    ids: set[str] = set()
    for method in methods:
        key = (method.api, method.name)
        request = schemas[((*key, "request"), "validation")]
        result, piece = (schemas.get(((*key, what), "serialization")) for what in ("result", "piece"))
        for verb in method.web.methods:
            operation = _operation(method, verb, request, definitions, _content(method, result, piece))
            if operation["operationId"] in ids:  # an API of a plugin has a method of the same name as another API
                operation["operationId"] = f"{method.api}_{operation['operationId']}"
            ids.add(operation["operationId"])
            paths.setdefault(method.web.route, {})[verb.lower()] = operation
    require_discriminators(definitions)
    return {
        "tags": [{"name": name, "description": (d.protocol.__doc__ or "").strip()} for name, d in apis.items()],
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR_SCHEMA} | definitions,
            "responses": error_responses(NATIVE_ERRORS, "Error"),
        },
    }


# ---- operations ------------------------------------------------------------------------------------------------------


def _content(method: MethodDefinition, result: JsonObject | None, piece: JsonObject | None) -> JsonObject:
    """The replies of a method, by media type."""
    web = method.web
    if method.reply_kind is not ReplyKind.JSON:
        # The media type of a file is known only when it is sent.
        media_type = "*/*" if method.reply_kind is ReplyKind.FILE else web.media_type or OCTETS
        return {media_type: {"schema": {"type": "string", "format": "binary"}}}
    content: JsonObject = {}
    if result is not None and web.status not in (HTTPStatus.NO_CONTENT, HTTPStatus.RESET_CONTENT):
        content["application/json"] = {"schema": result}
    if piece is not None:
        content["text/event-stream"] = {"schema": event_schema(piece, "Error", named=web.event_field)}
    return content


def _operation(
    method: MethodDefinition, verb: str, request: JsonObject, definitions: Mapping[str, JsonObject], content: JsonObject
) -> JsonObject:
    fields = Schema(request, definitions).fields
    operation: JsonObject = {
        "tags": [method.api],
        "operationId": method.name if verb == method.web.methods[0] else f"{method.name}_{verb.lower()}",
        "summary": method.doc.partition("\n")[0],
        "description": method.doc,
        "parameters": [{"$ref": "#/components/parameters/ProviderData"}],
        "responses": operation_responses(content, NATIVE_ERRORS, "Error", method.web.status),
    }
    places = {"path": method.path_parameters, "query": method.query_parameters(verb)}
    for place, names in places.items():
        for name in names:
            operation["parameters"].append(
                {"name": name, "in": place, "required": fields[name].required, "schema": fields[name].source}
            )
    names, kind = method.body_parameters(verb), method.body_kind(verb)
    if kind is BodyKind.BYTES:
        content = {OCTETS: {"schema": {"type": "string", "format": "binary"}}}
        operation["requestBody"] = {"required": fields[names[0]].required, "content": content}
    elif names or (kind is BodyKind.JSON and not method.parameters):
        whole = len(names) == len(method.parameters)
        inner = {
            "type": "object",
            "properties": {name: fields[name].source for name in names},
            "required": [name for name in names if fields[name].required],
            "additionalProperties": False,
        }
        media_type = "multipart/form-data" if kind is BodyKind.FORM else "application/json"
        operation["requestBody"] = {
            "required": whole or bool(inner["required"]),
            "content": {media_type: {"schema": request if whole else inner}},
        }
    return operation
