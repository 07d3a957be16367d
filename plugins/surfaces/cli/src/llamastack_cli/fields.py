"""The fields of a JSON schema, described for people."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel

Schema = Mapping[str, Any]
_MISSING = object()
_EMPTY: Mapping[Any, str] = {list: "[]", dict: "{}"}


@dataclass(frozen=True)
class SchemaField:
    """One field. name: `models[].path` for one inside a list. default: JSON text, or None without a default."""

    name: str
    type: str
    default: str | None
    required: bool
    description: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def fields_of(model: type[BaseModel]) -> list[SchemaField]:
    """The fields of a config class, its own before inherited ones. The fields of an object follow the object."""
    schema = model.model_json_schema()
    own_first = [name for cls in model.__mro__ for name in inspect.get_annotations(cls)]
    properties = schema.get("properties", {})
    schema["properties"] = {name: properties[name] for name in dict.fromkeys(own_first) if name in properties}
    made = {
        name: _EMPTY.get(field.default_factory, "(computed)")
        for name, field in model.model_fields.items()
        if field.default_factory is not None
    }
    return list(_fields(schema, schema.get("$defs", {}), "", made, ()))


def _fields(
    schema: Schema, definitions: Schema, prefix: str, made: Mapping[str, str], above: tuple[str, ...]
) -> Iterator[SchemaField]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        default = field.get("default", _MISSING)
        yield SchemaField(
            name=prefix + name,
            type=type_of(field, definitions),
            default=made[name] if name in made and not prefix else _default_text(default),
            required=name in required,
            description=" ".join(field.get("description", "").split()),
        )
        for reference, suffix in _objects_in(field):
            if reference not in above:
                inner = definitions.get(reference, {})
                yield from _fields(inner, definitions, f"{prefix}{name}{suffix}.", made, (*above, reference))


def _default_text(value: Any) -> str | None:
    return None if value is _MISSING else json.dumps(value, ensure_ascii=False)


def _reference(schema: Schema) -> str | None:
    found = schema.get("$ref")
    return found.rpartition("/")[2] if isinstance(found, str) else None


def _objects_in(schema: Schema, suffix: str = "") -> Iterator[tuple[str, str]]:
    name = _reference(schema)
    if name is not None:
        yield name, suffix
    for option in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from _objects_in(option, suffix)
    if isinstance(schema.get("items"), Mapping):
        yield from _objects_in(schema["items"], f"{suffix}[]")
    if isinstance(schema.get("additionalProperties"), Mapping):
        yield from _objects_in(schema["additionalProperties"], f"{suffix}.*")


def type_of(schema: Schema, definitions: Schema) -> str:
    """A type in a few words: `integer or null`, `list of string`, `"a" | "b"`."""
    name = _reference(schema)
    if name is not None:
        return type_of(definitions.get(name, {}), definitions)
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        return " or ".join(dict.fromkeys(type_of(option, definitions) for option in options))
    if schema.get("writeOnly") or schema.get("format") == "password":
        return "secret"
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {type_of(schema.get('items', {}), definitions)}"
    values = (schema.get("additionalProperties"), *schema.get("patternProperties", {}).values())
    value = next((value for value in values if isinstance(value, Mapping)), None)
    if kind == "object" and value is not None:
        return f"mapping to {type_of(value, definitions)}"
    return f"{kind} ({schema['format']})" if "format" in schema else str(kind)


def properties_of(schema: Schema) -> dict[str, list[Schema]]:
    """Property name -> its schemas in the object, or in each of the objects of a union."""
    definitions = schema.get("$defs", {})
    found: dict[str, list[Schema]] = {}
    name = _reference(schema)
    top = definitions.get(name, {}) if name is not None else schema
    for member in top.get("oneOf") or top.get("anyOf") or [top]:
        inner = definitions.get(_reference(member) or "", member)
        for field, described in inner.get("properties", {}).items():
            found.setdefault(field, []).append(described)
    return found
