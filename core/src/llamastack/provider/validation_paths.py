"""The path, in a caller's value, of a fault that pydantic found.

Pydantic's `loc` holds more than keys and places: at each union, the name of the type that was tried or its tag. Only
the schema tells which is which, so it is walked here beside the `loc`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, TypeAdapter

Shape = type[BaseModel] | TypeAdapter[Any]
"""What a value was validated as."""
_Schema = Mapping[str, Any]

_INSIDE = ("schema", "json_schema", "lax_schema", "python_schema", "strict_schema")
_FIELDS = {"model-fields", "typed-dict", "dataclass-args"}
_LISTS = {"list", "set", "frozenset", "generator"}
_FUNCTIONS = {"function-plain", "any", "is-instance", "custom-error", "call"}
_OF_A_KEY = "[key]"


class Step(NamedTuple):
    """One part of a `loc`.

    part: as pydantic has it. chosen: True for the member of a union, which is no part of the caller's path.
    """

    part: str | int
    chosen: bool = False


def steps_of(loc: Sequence[str | int], shape: Shape) -> list[Step]:
    """What each part of `loc` is."""
    root = shape.core_schema if isinstance(shape, TypeAdapter) else shape.__pydantic_core_schema__
    for steps in _walk(root, loc, {}):
        return steps
    # A validator of somebody's own made this `loc`: there are no unions that we know of in it.
    return [Step(part) for part in loc if part != _OF_A_KEY]


def _walk(schema: _Schema, loc: Sequence[str | int], known: Mapping[str, _Schema]) -> Iterator[list[Step]]:
    """Every way in which `schema` explains `loc`, the likeliest first."""
    kind = schema["type"]
    if kind == "definitions":
        known = {**known, **{each["ref"]: each for each in schema["definitions"]}}
    elif kind == "definition-ref":
        yield from _walk(known[schema["schema_ref"]], loc, known)
        return
    if not loc:
        yield []
        return
    first, rest = loc[0], loc[1:]
    if kind in ("union", "tagged-union"):
        for choice in _choices(schema, first):
            yield from ([Step(first, chosen=True), *steps] for steps in _walk(choice, rest, known))
    elif kind in _FIELDS:
        for inner in _fields(schema, first, last=not rest):
            yield from ([Step(first), *steps] for steps in _walk(inner, rest, known))
    elif kind == "dict":
        if rest == (_OF_A_KEY,):
            yield [Step(first)]
        inner = schema.get("values_schema", {"type": "any"})
        yield from ([Step(first), *steps] for steps in _walk(inner, rest, known))
    elif kind in _LISTS or kind == "tuple":
        items = schema.get("items_schema", {"type": "any"})
        for inner in items if isinstance(items, list) else [items]:
            yield from ([Step(first), *steps] for steps in _walk(inner, rest, known))
    elif kind == "chain":
        for inner in schema["steps"]:
            yield from _walk(inner, loc, known)
    elif kind in _FUNCTIONS and "schema" not in schema:
        yield [Step(part) for part in loc]
    for name in _INSIDE:
        if isinstance(schema.get(name), dict):
            yield from _walk(schema[name], loc, known)


def _choices(schema: _Schema, label: str | int) -> list[_Schema]:
    """The members of a union, that which `label` names first."""
    if schema["type"] == "tagged-union":
        choices = schema["choices"]
        return [choices[tag] for tag in choices if str(getattr(tag, "value", tag)) == str(label)]
    members = [member if isinstance(member, dict) else member[0] for member in schema["choices"]]
    return sorted(members, key=lambda member: _name(member) != label)


def _name(schema: _Schema) -> str:
    cls = schema.get("cls")
    return cls.__name__ if isinstance(cls, type) else str(schema["type"])


def _fields(schema: _Schema, name: str | int, *, last: bool) -> Iterator[_Schema]:
    fields = schema["fields"]
    named = fields.items() if isinstance(fields, dict) else ((field["name"], field) for field in fields)
    for own, field in named:
        if name == field.get("validation_alias", own) or name == own:
            yield field["schema"]
            return
    if "extras_schema" in schema:
        yield schema["extras_schema"]
    elif last:
        yield {"type": "any"}  # an unknown field


def path_of(loc: Sequence[object]) -> str:
    """`["messages", 0, "content"]` -> `messages[0].content`."""
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path
