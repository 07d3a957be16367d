"""Bodies of requests that are as large as can be: made from the schema of a route, one place of it inflated."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

_HOLE = "@@here@@"
_DEEPEST = 8
Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """A place in a body that can be of any size. kind: what stands there. body: with a hole at it. items: those of an
    array, each kind once, as small as they are valid.
    """

    path: str
    kind: str
    body: Any
    items: tuple[Any, ...] = ()

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

    def places(self) -> Iterable[Place]:
        """Every place once, in optional fields too; of a type that is in itself, the first time."""
        found: dict[tuple[str, str], Place] = {}
        for place in self._places(self._schema, "", ()):
            before = found.get((place.path, place.kind))
            found[place.path, place.kind] = replace(place, items=(before.items if before else ()) + place.items)
        return found.values()

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

    def _examples(self, schema: Schema) -> Iterator[Any]:
        """One of each member of a union."""
        schema, _ = self._resolved(schema)
        for key in ("anyOf", "oneOf"):
            for member in schema.get(key, ()):
                yield from self._examples(member)
        if "anyOf" not in schema and "oneOf" not in schema:
            yield self._example(schema)

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
            yield Place(path, "array", _HOLE, tuple(self._examples(items)))
            for inside in self._places(items, f"{path}[]", seen):
                yield Place(inside.path, inside.kind, [inside.body], inside.items)
        elif kind == "object" and "properties" in schema:
            example = self._example(schema)
            for field, inner in schema["properties"].items():
                for inside in self._places(inner, f"{path}.{field}", seen):
                    yield Place(inside.path, inside.kind, {**example, field: inside.body}, inside.items)
        elif kind == "object" or not kind:
            yield Place(path, "mapping", _HOLE)


@dataclass(frozen=True)
class Largest:
    """The limits that a text is made for: `size` in bytes, and elements as the server counts them."""

    size: int
    elements: int
    numbers_in_one: int

    def many(self, one: str) -> str:
        """A list of as many of `one`, which is JSON, as are allowed."""
        return f"[{','.join([one] * self._times(one))}]"

    def keys(self) -> str:
        return "{" + ",".join(f'"k{n:07}":0' for n in range(self._times('"k0000000":0'))) + "}"

    def _times(self, one: str) -> int:
        containers = one.count("{") + one.count("[")
        elements = one.count('"') // 2 + containers + (one.count(",") + containers + 1) / self.numbers_in_one
        return max(1, min(self.size // (len(one) + 1), int((self.elements - 100) / elements)))


FILLINGS: Mapping[str, Mapping[str, Callable[[Largest], str]]] = {
    "string": {
        "long": lambda most: f'"{"a" * most.size}"',
        "escapes": lambda most: '"' + "\\u00e9" * (most.size // 6) + '"',
        "words": lambda most: '"' + "ab " * (most.size // 3) + '"',
        "numbers": lambda most: most.many("1.5"),
    },
    "array": {
        "numbers": lambda most: most.many("1.5"),
        "objects": lambda most: most.many("{}"),
        "roles": lambda most: most.many('{"role":"x"}'),
        "texts": lambda most: most.many('"a"'),
        "lists": lambda most: most.many("[[[[1]]]]"),
    },
    "mapping": {
        "keys": lambda most: most.keys(),
        "nested": lambda most: '{"a":' * (most.size // 6) + "1" + "}" * (most.size // 6),
        "deep but allowed": lambda most: most.many('{"a":' * 50 + "1" + "}" * 50),
        "numbers": lambda most: f'{{"a":{most.many("1")}}}',
    },
}
"""By kind of a place: the largest texts, by name; most are not valid there."""

WHOLE: Mapping[str, Callable[[int], bytes]] = {
    "unknown fields": lambda size: b"{" + b",".join(b'"k%07d":0' % n for n in range(size // 13)) + b"}",
    "one unknown field": lambda size: b'{"unknown":[' + b",".join([b"1"] * (size // 2 - 8)) + b"]}",
    "array": lambda size: b"[" + b",".join([b"1"] * (size // 2 - 1)) + b"]",
    "nested": lambda size: b"[" * size,
    "digits": lambda size: b'{"model":' + b"1" * size + b"}",
    "no JSON at its end": lambda size: b'{"model":"m","a":[' + b"1," * (size // 2) + b"x]}",
    "no UTF-8": lambda size: b'{"model":"' + b"\xff" * size + b'"}',
    "spaces": lambda size: b" " * size + b"{}",
    "same key": lambda size: ('{"model":"m"' + ',"model":"m"' * (size // 12) + "}").encode(),
}
"""Whole bodies of about a given size in bytes, by name."""
