"""Bodies of requests that are as large as can be: made from the schema of a route, one place of it inflated."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_HOLE = "@@here@@"
_DEEPEST = 8
Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """A place in a body that can be of any size. kind: what stands there. body: with a hole at it. item: one of an
    array, as small as it is valid.
    """

    path: str
    kind: str
    body: Any
    item: Any = None

    def filled(self, text: str) -> bytes:
        """The body with `text`, which is JSON, in the hole."""
        before, _, after = json.dumps(self.body).partition(f'"{_HOLE}"')
        return f"{before}{text}{after}".encode()


class Bodies:
    """Bodies of one schema. names: values of fields by their name, such as of a model that is there."""

    def __init__(self, schema: Schema, names: Mapping[str, Any]) -> None:
        self._schema = schema
        self._definitions: Mapping[str, Schema] = schema.get("$defs", {})
        self._names = names

    def smallest(self) -> Any:
        return self._example(self._schema)

    def places(self) -> Iterator[Place]:
        """Every place, in optional fields too; of a type that is in itself, the first time."""
        yield from self._places(self._schema, "", ())

    def _resolved(self, schema: Schema) -> tuple[Schema, str | None]:
        reference = schema.get("$ref")
        if reference is None:
            return schema, None
        name = str(reference).rpartition("/")[2]
        return self._definitions[name], name

    def _example(self, schema: Schema) -> Any:
        schema, _ = self._resolved(schema)
        for key in ("const", "default"):
            if schema.get(key) is not None:
                return schema[key]
        if "enum" in schema:
            return schema["enum"][0]
        for key in ("anyOf", "oneOf", "allOf"):
            if key in schema:
                return self._example(next((s for s in schema[key] if s.get("type") != "null"), {}))
        kind = schema.get("type")
        if kind == "object":
            fields = schema.get("properties", {})
            return {
                name: self._names.get(name, None) or self._example(fields[name])
                for name in dict.fromkeys((*schema.get("required", ()), *(n for n in fields if "const" in fields[n])))
            }
        if kind == "array":
            return [self._example(schema.get("items", {}))] * max(1, schema.get("minItems", 0))
        if kind == "string":
            return "2026-01-01T00:00:00Z" if schema.get("format") == "date-time" else "m"
        return {"integer": 1, "number": 1.0, "boolean": True, "null": None}.get(str(kind), {})

    def _places(self, schema: Schema, path: str, seen: tuple[str, ...]) -> Iterator[Place]:
        schema, name = self._resolved(schema)
        if name is not None:
            if name in seen or len(seen) > _DEEPEST:
                return
            seen = (*seen, name)
        for key in ("anyOf", "oneOf", "allOf"):
            for one in schema.get(key, ()):
                yield from self._places(one, path, seen)
        if any(key in schema for key in ("anyOf", "oneOf", "allOf", "const", "enum")):
            return
        kind = schema.get("type")
        if kind == "string" and "format" not in schema:
            yield Place(path, "string", _HOLE)
        elif kind == "array":
            items = schema.get("items", {})
            yield Place(path, "array", _HOLE, self._example(items))
            for inside in self._places(items, f"{path}[]", seen):
                yield Place(inside.path, inside.kind, [inside.body], inside.item)
        elif kind == "object" and "properties" in schema:
            example = self._example(schema)
            for field, inner in schema["properties"].items():
                for inside in self._places(inner, f"{path}.{field}", seen):
                    yield Place(inside.path, inside.kind, {**example, field: inside.body}, inside.item)
        elif kind == "object" or not kind:
            yield Place(path, "mapping", _HOLE)


def _many(one: str, size: int) -> str:
    return f"[{','.join([one] * max(1, size // (len(one) + 1)))}]"


def _keys(size: int) -> str:
    return "{" + ",".join(f'"k{n}":0' for n in range(size // 11)) + "}"


def _nested(size: int) -> str:
    return '{"a":' * (size // 6) + "1" + "}" * (size // 6)


FILLINGS: Mapping[str, Mapping[str, Callable[[int, Place], str]]] = {
    "string": {
        "long": lambda size, _: f'"{"a" * size}"',
        "escapes": lambda size, _: '"' + "\\u00e9" * (size // 6) + '"',
        "words": lambda size, _: '"' + "ab " * (size // 3) + '"',
        "numbers": lambda size, _: _many("1.5", size),
    },
    "array": {
        "valid": lambda size, place: _many(json.dumps(place.item), size),
        "numbers": lambda size, _: _many("1.5", size),
        "objects": lambda size, _: _many("{}", size),
        "roles": lambda size, _: _many('{"role":"x"}', size),
        "texts": lambda size, _: _many('"a"', size),
        "lists": lambda size, _: _many("[[[[1]]]]", size),
    },
    "mapping": {
        "keys": lambda size, _: _keys(size),
        "nested": lambda size, _: _nested(size),
        "deep but allowed": lambda size, _: _many('{"a":' * 50 + "1" + "}" * 50, size),
        "numbers": lambda size, _: f'{{"a":{_many("1", size)}}}',
    },
}
"""By kind of a place: texts of about a given size in bytes, valid and invalid ones, by name."""

WHOLE: Mapping[str, Callable[[int], bytes]] = {
    "unknown fields": lambda size: _keys(size).encode(),
    "one unknown field": lambda size: b'{"unknown":' + _many("1", size).encode() + b"}",
    "array": lambda size: _many("1", size).encode(),
    "nested": lambda size: b"[" * size,
    "digits": lambda size: b'{"model":' + b"1" * size + b"}",
    "no JSON at its end": lambda size: b'{"model":"m","a":[' + b"1," * (size // 2) + b"x]}",
    "no UTF-8": lambda size: b'{"model":"' + b"\xff" * size + b'"}',
    "spaces": lambda size: b" " * size + b"{}",
    "same key": lambda size: ('{"model":"m"' + ',"model":"m"' * (size // 12) + "}").encode(),
}
"""Whole bodies of about a given size in bytes, by name."""
