"""Tool calls of a small model: it is held to the JSON schema of a call, as a capable one would keep to it by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def call_schema(functions: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """The schema of `{"name": ..., "arguments": {...}}` for any of these functions: (name, parameters)."""
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": name},
                # Or so small a model writes without end.
                "arguments": {"additionalProperties": False, **parameters},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for name, parameters in functions
    ]
    return {"anyOf": calls}
