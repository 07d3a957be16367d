"""The OpenAPI 3.1 document, derived from the API definitions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from llamastack.api.definition import API_VERSION, ApiDefinition, MethodDefinition
from llamastack.provider.request_data import PROVIDER_DATA_HEADER
from llamastack.server.openai import PREFIX, ROUTES, Route

_REF = "#/components/schemas/{model}"
_ERROR: dict[str, Any] = {
    "description": "What went wrong",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
_PROVIDER_DATA: dict[str, Any] = {
    "name": PROVIDER_DATA_HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
}
_OPENAI = "openai"
_ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "provider_id": {"type": "string"},
                "param": {"type": "string"},
                "request_id": {"type": "string"},
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
        inputs.append(((*key, "result"), "serialization", method.result.core_schema))
        if method.piece is not None:
            inputs.append(((*key, "piece"), "serialization", method.piece.core_schema))
    schemas, found = GenerateJsonSchema(ref_template=_REF).generate_definitions(inputs)
    definitions: dict[str, Any] = {str(name): schema for name, schema in found.items()}
    paths: dict[str, Any] = {}
    for method in methods:
        key = (method.api, method.name)
        result = schemas[((*key, "result"), "serialization")]
        piece = schemas.get(((*key, "piece"), "serialization"))
        for http_method in method.web.methods:
            paths.setdefault(method.web.route, {})[http_method.lower()] = _operation(
                method, http_method, schemas[((*key, "request"), "validation")], definitions, result, piece
            )
    openai_paths, openai_definitions = _openai_paths(apis)
    paths |= openai_paths
    definitions |= openai_definitions
    return {
        "openapi": "3.1.0",
        "info": {"title": "llamastack", "version": ".".join(map(str, API_VERSION))},
        "tags": [
            *({"name": name, "description": (d.protocol.__doc__ or "").strip()} for name, d in apis.items()),
            {"name": _OPENAI, "description": "The same models and shields, for clients of OpenAI's API."},
        ],
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR_SCHEMA, **definitions}},
    }


def _operation(
    method: MethodDefinition,
    http_method: str,
    request: dict[str, Any],
    definitions: dict[str, Any],
    result: dict[str, Any],
    piece: dict[str, Any] | None,
) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": result}}
    if piece is not None:
        content["text/event-stream"] = {"schema": piece}
    operation: dict[str, Any] = {
        "tags": [method.api],
        "operationId": method.name if http_method == method.web.methods[0] else f"{method.name}_{http_method.lower()}",
        "summary": method.doc.partition("\n")[0],
        "description": method.doc,
        "parameters": [_PROVIDER_DATA],
        "responses": {"200": {"description": "OK", "content": content}, "4XX": _ERROR, "5XX": _ERROR},
    }
    if http_method == "GET":
        model = definitions[request["$ref"].rpartition("/")[2]]
        for name, schema in model.get("properties", {}).items():
            operation["parameters"].append(
                {"name": name, "in": "query", "required": name in model.get("required", ()), "schema": schema}
            )
    else:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": request}}}
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
    """What is answered is described by OpenAI."""
    operation: dict[str, Any] = {
        "tags": [_OPENAI],
        "operationId": f"openai_{route.method}",
        "summary": f"OpenAI's /{route.path}, by {route.api}.{route.method}",
        "externalDocs": {"url": route.reference},
        "parameters": [
            _PROVIDER_DATA,
            *(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in re.findall(r"{(\w+)}", route.path)
            ),
        ],
        "responses": {"200": {"description": "As OpenAI's API has it"}, "4XX": _ERROR, "5XX": _ERROR},
    }
    if request is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": request}}}
    return operation
