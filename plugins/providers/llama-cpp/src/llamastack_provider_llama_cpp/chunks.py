"""Forced tool calls: the request to llama.cpp, and its chunks as tool calls."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

from llamastack.provider import BackendError
from llamastack_provider_llama_cpp.engine import Chunk


def forced_call(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a chat request whose reply can only be a call of one of its tools. llama.cpp's own `tool_choice:
    required` lets the model talk instead.

    Here a JSON schema limits the reply to a call, `{"name": ..., "arguments": {...}}`; `calls_from_text` reads it. Stop
    texts are left out, because they are for text.
    """
    functions = [tool["function"] for tool in body["tools"]]
    definitions = {f"arguments_{number}": function["parameters"] for number, function in enumerate(functions)}
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": function["name"]},
                "arguments": _moved(definitions[name], f"#/$defs/{name}"),
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for name, function in zip(definitions, functions, strict=True)
    ]
    whole: dict[str, Any] = {"anyOf": calls}
    if any("$ref" in str(parameters) for parameters in definitions.values()):
        whole["$defs"] = {name: _moved(parameters, f"#/$defs/{name}") for name, parameters in definitions.items()}
    schema = {"name": "call", "strict": True, "schema": whole}
    response_format = {"type": "json_schema", "json_schema": schema}
    return {**body, "tool_choice": "none", "stop": [], "response_format": response_format}


_DATA = ("const", "enum", "default", "examples")


def _moved(schema: Any, place: str) -> Any:
    """A JSON schema for the place `place` in another schema, with its internal references changed to lead there."""
    if isinstance(schema, list):
        return [_moved(item, place) for item in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {}
    for name, value in schema.items():
        if name == "$ref" and isinstance(value, str) and value.startswith("#"):
            moved[name] = place + value[1:]
        else:
            moved[name] = value if name in _DATA else _moved(value, place)
    return moved


async def calls_from_text(chunks: AsyncIterator[Chunk], provider_id: str) -> AsyncIterator[Chunk]:
    """The chunks of a `forced_call`, with the tool call in the last one's delta."""
    text = ""
    async for chunk in chunks:
        if not chunk["choices"]:  # the usage
            yield chunk
            continue
        choice = chunk["choices"][0]
        text += choice["delta"].pop("content", None) or ""
        if choice["finish_reason"] is not None:
            function = {"name": "", "arguments": text}
            if choice["finish_reason"] == "stop":
                call = _json_of(text, provider_id)
                function = {"name": call["name"], "arguments": json.dumps(call["arguments"])}
                choice["finish_reason"] = "tool_calls"
            choice["delta"]["tool_calls"] = [{"index": 0, "id": f"call_{uuid.uuid4().hex}", "function": function}]
        yield chunk


def _json_of(text: str, provider_id: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BackendError(f"llama.cpp did not apply the JSON schema: {text[:300]}", provider_id=provider_id) from error
