"""The part of the OpenAPI document that describes `/v1`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from llamastack_adapters.sse_blocks import DONE
from llamastack_openai_api.errors import OPENAI_ERRORS, PREFIX
from llamastack_openai_api.schemas import SCHEMAS
from llamastack_server import (
    REFERENCE,
    error_responses,
    event_schema,
    operation_responses,
    require_discriminators,
)

if TYPE_CHECKING:
    from llamastack_openai_api.routes import OpenAIRoute
    from llamastack_openai_api.routes_beyond_openai import StackRoute

_OPENAI = "openai"


def openai_openapi(routes: Sequence[OpenAIRoute], stack_routes: Sequence[StackRoute]) -> dict[str, Any]:
    """The part for these routes."""
    paths, definitions = _openai_paths([*routes, *stack_routes])
    require_discriminators(definitions)
    return {
        "tags": [{"name": _OPENAI, "description": "The same models and shields, for clients of OpenAI's API."}],
        "paths": paths,
        "components": {
            "schemas": {f"OpenAI{name}": schema for name, schema in SCHEMAS.items()} | definitions,
            "responses": error_responses(OPENAI_ERRORS, "OpenAIError"),
        },
    }


def _openai_paths(routes: Sequence[OpenAIRoute | StackRoute]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Paths and schemas. OpenAI's types get a prefix, because some have the name of a native type."""
    inputs: list[tuple[str, JsonSchemaMode, Any]] = [
        (route.path, "validation", route.request.core_schema) for route in routes if route.request is not None
    ]
    schemas, found = GenerateJsonSchema(ref_template=REFERENCE.format(model="OpenAI{model}")).generate_definitions(
        inputs
    )
    paths: dict[str, Any] = {}
    for route in routes:
        operation = _openai_operation(route, schemas.get((route.path, "validation")))
        paths.setdefault(PREFIX + route.path, {})[route.http_method.lower()] = operation
    return paths, {f"OpenAI{name}": schema for name, schema in found.items()}


def _openai_operation(route: OpenAIRoute | StackRoute, request: dict[str, Any] | None) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "tags": [_OPENAI],
        "operationId": "_".join([_OPENAI, *re.findall(r"\w+", route.path)]),
        "summary": route.summary,
        "externalDocs": {"url": route.reference},
        "parameters": [
            {"$ref": "#/components/parameters/ProviderData"},
            *(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in re.findall(r"{(\w+)}", route.path)
            ),
        ],
        "responses": operation_responses(_openai_content(route), OPENAI_ERRORS, "OpenAIError"),
    }
    if request is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": request}}}
    return operation


def _openai_content(route: OpenAIRoute | StackRoute) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": route.result}}
    if route.piece is not None:
        content["text/event-stream"] = {"schema": event_schema(route.piece, "OpenAIError", DONE.decode())}
    return content
