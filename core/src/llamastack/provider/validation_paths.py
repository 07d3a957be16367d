"""The path, in a caller's value, of a fault that pydantic found.

Pydantic's `loc` holds more than keys and places: at each union, the name of the type that was tried or its tag. Only
the schema tells which is which, so it is walked here beside the `loc`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, TypeAdapter

Shape = type[BaseModel] | TypeAdapter[Any]
"""What a value was validated as."""
_Schema = Mapping[str, Any]

_AROUND = ("schema", "json_schema", "lax_schema", "python_schema", "strict_schema")
_UNIONS = ("union", "tagged-union")
_FUNCTIONS = ("function-plain", "any", "is-instance", "custom-error", "call")
_ANYTHING: _Schema = {"type": "any"}
_OF_A_KEY = "[key]"


class Step(NamedTuple):
    """One part of a `loc`.

    part: as pydantic has it. chosen: True for the member of a union, which is not part of the caller's path.
    """

    part: str | int
    chosen: bool = False


def steps_of(loc: Sequence[str | int], shape: Shape) -> list[Step]:
    """What each part of `loc` is."""
    root = shape.core_schema if isinstance(shape, TypeAdapter) else shape.__pydantic_core_schema__
    parts = loc[:-1] if loc and loc[-1] == _OF_A_KEY else loc
    # If the schema does not explain it, a validator of the type's author made it, and it names no unions.
    return next(_walk(root, parts, {}), [Step(part) for part in parts if part != _OF_A_KEY])


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
    if kind in _FUNCTIONS and "schema" not in schema:
        yield [Step(part) for part in loc]
    first = Step(loc[0], chosen=kind in _UNIONS)
    for inner in _inside(schema, loc):
        yield from ([first, *steps] for steps in _walk(inner, loc[1:], known))
    around = [schema[name] for name in _AROUND if isinstance(schema.get(name), dict)]
    for same in (*around, *(schema["steps"] if kind == "chain" else ())):
        yield from _walk(same, loc, known)


def _inside(schema: _Schema, loc: Sequence[str | int]) -> Iterable[_Schema]:
    """The schemas to which the first part of `loc` can lead."""
    match schema["type"]:
        case "union" | "tagged-union":
            return _choices(schema, loc[0])
        case "model-fields" | "typed-dict" | "dataclass-args":
            return _fields(schema, loc[0], last=len(loc) == 1)
        case "dict":
            return [schema.get("values_schema", _ANYTHING)]
        case "list" | "set" | "frozenset" | "generator" | "tuple":
            items = schema.get("items_schema", _ANYTHING)
            return items if isinstance(items, list) else [items]
    return []


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
        yield _ANYTHING  # an unknown field


def path_of(loc: Sequence[object]) -> str:
    """`["messages", 0, "content"]` -> `messages[0].content`."""
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path
