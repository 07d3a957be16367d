"""JSON Schemas of the replies of `/v1`: the fields that clients read. A forwarded reply may have others.

Format: https://platform.openai.com/docs/api-reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]
_TEXT: Schema = {"type": "string"}
_WHOLE: Schema = {"type": "integer"}
_NUMBER: Schema = {"type": "number"}
_ANY: Schema = {}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _object(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    return {"type": "object", "required": [*required], "properties": {**required, **(optional or {})}}


def reference_to(name: str) -> Schema:
    """A reference to one of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/OpenAI{name}"}


_CALL = _object(
    {"function": _object({}, {"name": _or_null(_TEXT), "arguments": _or_null(_TEXT)})},
    {"id": _or_null(_TEXT), "type": _or_null(_TEXT), "index": _or_null(_WHOLE)},
)
_PARTS: dict[str, Schema] = {
    "role": _or_null(_TEXT),
    "content": _or_null(_TEXT),
    "refusal": _or_null(_TEXT),
    "tool_calls": _or_null(_list(_CALL)),
}
_FINISH: dict[str, Schema] = {"finish_reason": _or_null(_TEXT), "logprobs": _or_null({"type": "object"})}
_HEAD: dict[str, Schema] = {
    "id": _TEXT,
    "created": _WHOLE,
    "model": _TEXT,
    "usage": _or_null(reference_to("Usage")),
}


def _generated(kind: str, choice: Schema) -> Schema:
    return _object({"object": {"const": kind}, "choices": _list(choice)}, _HEAD)


SCHEMAS: dict[str, Schema] = {
    "Usage": _object(
        {}, {"prompt_tokens": _WHOLE, "completion_tokens": _or_null(_WHOLE), "total_tokens": _or_null(_WHOLE)}
    ),
    "ChatCompletion": _generated(
        "chat.completion", _object({"index": _WHOLE, "message": _object({}, _PARTS)}, _FINISH)
    ),
    "ChatCompletionChunk": _generated(
        "chat.completion.chunk", _object({"index": _WHOLE, "delta": _object({}, _PARTS)}, _FINISH)
    ),
    "Completion": _generated("text_completion", _object({"index": _WHOLE, "text": _TEXT}, _FINISH)),
    "Embeddings": _object(
        {
            "object": {"const": "list"},
            "data": _list(_object({"index": _WHOLE, "embedding": {"anyOf": [_list(_NUMBER), _TEXT]}})),
        },
        {"model": _TEXT, "usage": _or_null(reference_to("Usage"))},
    ),
    "Moderation": _object(
        {
            "id": _TEXT,
            "model": _TEXT,
            "results": _list(
                _object({"flagged": {"type": "boolean"}, "categories": {"type": "object"}, "category_scores": _ANY})
            ),
        }
    ),
    "Model": _object(
        {"id": _TEXT, "object": {"const": "model"}},
        {
            "created": _WHOLE,
            "owned_by": _TEXT,
            "custom_metadata": {"type": "object"},
            "identifier": _TEXT,
            "type": {"const": "model"},
            "model_type": {"type": "string", "enum": ["llm", "embedding"]},
            "provider_id": _TEXT,
            "provider_resource_id": _TEXT,
            "metadata": {"type": "object"},
        },
    ),
    "Models": _object({"object": {"const": "list"}, "data": _list(reference_to("Model"))}),
    "Error": _object(
        {
            "error": _object(
                {"message": _TEXT, "type": _TEXT, "param": _or_null(_TEXT), "code": _or_null(_TEXT)},
                {"provider_id": _TEXT, "request_id": _TEXT},
            )
        }
    ),
}
"""By name; the OpenAPI document puts `OpenAI` before it."""

ANSWERS: dict[str, tuple[str, str | None]] = {
    "models": ("Models", None),
    "models/{model}": ("Model", None),
    "chat/completions": ("ChatCompletion", "ChatCompletionChunk"),
    "completions": ("Completion", "Completion"),
    "embeddings": ("Embeddings", None),
    "moderations": ("Moderation", None),
}
"""Path of a route -> the schema of its answer, and of each event of a stream."""
