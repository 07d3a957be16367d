"""JSON values that fit a JSON schema, and the same values broken in one place each."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

Path = tuple[str | int, ...]
_DEEPEST = 24
_TEXTS = {"date-time": "2026-01-01T00:00:00Z"}


def examples_of(schema: Mapping[str, Any]) -> list[Any]:
    """Values that have every field, each alternative of a union in at least one of them."""
    return list(_values(schema, schema.get("$defs", {}), 0))


def _values(schema: Mapping[str, Any], known: Mapping[str, Any], depth: int) -> Iterator[Any]:
    if depth > _DEEPEST:
        return
    if "$ref" in schema:
        yield from _values(known[schema["$ref"].rpartition("/")[2]], known, depth + 1)
    elif "const" in schema:
        yield schema["const"]
    elif "enum" in schema:
        yield schema["enum"][0]
    elif "anyOf" in schema or "oneOf" in schema:
        for choice in schema.get("anyOf") or schema["oneOf"]:
            yield from _values(choice, known, depth + 1)
    elif schema.get("type") == "object":
        yield from _objects(schema, known, depth)
    elif schema.get("type") == "array":
        for value in _values(schema.get("items", {}), known, depth + 1):
            yield [value]
    else:
        yield _scalar(schema)


def _objects(schema: Mapping[str, Any], known: Mapping[str, Any], depth: int) -> Iterator[Any]:
    values = {name: list(_values(inner, known, depth + 1)) for name, inner in schema.get("properties", {}).items()}
    inner = schema.get("additionalProperties")
    if isinstance(inner, Mapping):
        # A key that could be taken for a word of the schema.
        values["str"] = list(_values(inner, known, depth + 1))
    first = {name: found[0] for name, found in values.items() if found}
    yield first
    for name, found in values.items():
        for other in found[1:]:
            if other is not None:
                yield {**first, name: other}


def _scalar(schema: Mapping[str, Any]) -> Any:
    match schema.get("type"):
        case "string":
            return _TEXTS.get(schema.get("format", ""), "http://host/path")
        case "integer" | "number":
            return max(1, schema.get("minimum", 1))
        case "boolean":
            return True
        case "null":
            return None
    return {"str": "anything"}


def paths_in(value: Any, path: Path = ()) -> Iterator[Path]:
    """Every place in `value` but itself."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield (*path, key)
        yield from paths_in(inner, (*path, key))


def broken_at(value: Any, path: Path, *replacement: Any) -> Any:
    """A copy of `value` with `replacement` at `path`; without one, that place is left out."""
    changed = copy.deepcopy(value)
    *above, last = path
    at = changed
    for part in above:
        at = at[part]
    if replacement:
        at[last] = replacement[0]
    else:
        del at[last]
    return changed
