"""The fields of a config, described for people."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel

from llamastack.api.schema import Schema

_EMPTY: Mapping[Any, str] = {list: "[]", dict: "{}"}


@dataclass(frozen=True)
class ConfigField:
    """One field. name: `models[].path` for one inside a list. default: JSON text, or None without a default."""

    name: str
    type: str
    default: str | None
    required: bool
    description: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def fields_of(model: type[BaseModel]) -> list[ConfigField]:
    """The fields of a config class, its own before inherited ones. The fields of an object follow the object."""
    fields = model.model_fields
    annotated = dict.fromkeys(name for cls in model.__mro__ for name in inspect.get_annotations(cls) if name in fields)
    own_first = {str(fields[name].validation_alias or name): place for place, name in enumerate(annotated)}
    made = {
        str(field.validation_alias or name): _EMPTY.get(field.default_factory, "(computed)")
        for name, field in fields.items()
        if field.default_factory is not None
    }
    found = [
        ConfigField(path, words_of(field), made.get(path, _default_of(field)), field.required, field.description)
        for path, field in Schema.of(model).nested_fields()
    ]
    return sorted(found, key=lambda field: own_first.get(re.split(r"[.[]", field.name)[0], len(own_first)))


def _default_of(schema: Schema) -> str | None:
    return json.dumps(schema.source["default"], ensure_ascii=False) if "default" in schema.source else None


def words_of(schema: Schema) -> str:
    """A type in a few words: `integer or null`, `list of string`, `"a" | "b"`."""
    return " or ".join(dict.fromkeys(_words_of_member(member) for member in schema.members()))


def _words_of_member(schema: Schema) -> str:
    source = schema.source
    if "const" in source:
        return json.dumps(source["const"])
    if "enum" in source:
        return " | ".join(json.dumps(value) for value in source["enum"])
    if source.get("writeOnly") or source.get("format") == "password":
        return "secret"
    kind = source.get("type", "any")
    if kind == "array":
        return f"list of {'any' if schema.items is None else words_of(schema.items)}"
    if kind == "object" and schema.items is not None:
        return f"mapping to {words_of(schema.items)}"
    return f"{kind} ({source['format']})" if "format" in source else str(kind)
