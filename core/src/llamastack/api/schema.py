"""The JSON schema of a type, walked in one place: its fields, and what a value of it may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from pydantic import TypeAdapter

_TEXTS = ("string", "integer", "number", "boolean", "null")


@dataclass(frozen=True)
class Schema:
    """A JSON schema, or a part of one.

    source: the schema itself. definitions: what it refers to, by name. required: whether its object requires it.
    followed: the references that led here; each is followed once, as a type may hold itself.
    """

    source: Mapping[str, Any]
    definitions: Mapping[str, Any]
    required: bool = False
    followed: frozenset[str] = frozenset()

    @classmethod
    def of(cls, kind: Any) -> Self:
        """The schema of a type, or of what a `TypeAdapter` reads."""
        source = (kind if isinstance(kind, TypeAdapter) else TypeAdapter(kind)).json_schema()
        return cls(source, source.get("$defs", {}))

    @property
    def description(self) -> str:
        return " ".join(self.source.get("description", "").split())

    def members(self) -> Iterator[Schema]:
        """What a value may be: references are resolved, and each member of a union is listed."""
        name = self.source.get("$ref", "").rpartition("/")[2]
        options = self.source.get("anyOf") or self.source.get("oneOf")
        if name in self.followed:
            yield replace(self, source={"type": self.definitions[name].get("type", "any")})
        elif name:
            yield from replace(self, source=self.definitions[name], followed=self.followed | {name}).members()
        elif options:
            for option in options:
                yield from replace(self, source=option).members()
        else:
            yield self

    @property
    def items(self) -> Schema | None:
        """The schema of the values of a list or a mapping; None if they have no common schema."""
        patterns = self.source.get("patternProperties", {})
        places = (self.source.get("items"), self.source.get("additionalProperties"), *patterns.values())
        return next((replace(self, source=place) for place in places if isinstance(place, Mapping)), None)

    @property
    def fields(self) -> dict[str, Schema]:
        """The fields of an object by name. A union has the fields of all its members, each a union of what they say."""
        found: dict[str, Schema] = {}
        for member in self.members():
            for name, source in member.source.get("properties", {}).items():
                field = replace(member, source=source, required=name in member.source.get("required", ()))
                if (other := found.get(name)) is not None:
                    either = {"description": other.description or field.description, "anyOf": [other.source, source]}
                    field = replace(other, source=either, required=other.required and field.required)
                found[name] = field
        return found

    def nested_fields(self, prefix: str = "") -> Iterator[tuple[str, Schema]]:
        """The fields, each before those inside it, under names such as `models[].path` and `servers.*.url`."""
        for name, field in self.fields.items():
            path = f"{prefix}.{name}" if prefix else name
            yield path, field
            yield from field.nested_fields(path)
        for member in self.members():
            if member.items is not None:
                yield from member.items.nested_fields(prefix + ("[]" if "items" in member.source else ".*"))

    def values_of(self, keyword: str) -> set[object]:
        """What is said under a keyword such as `type` or `format`, also of the values of lists and mappings."""
        found: set[object] = set()
        for member in self.members():
            found |= {member.source.get(keyword)} if member.items is None else member.items.values_of(keyword)
        return found

    @property
    def is_secret(self) -> bool:
        """Whether a value, or one inside it, is a secret."""
        return True in self.values_of("writeOnly")

    def is_text(self, *, lists: bool = False) -> bool:
        """Whether every value can be written as a text, in a path, a query or an option. lists: or as several texts."""
        return all(
            "const" in member.source
            or "enum" in member.source
            or (member.source.get("type") in _TEXTS and member.source.get("format") != "binary")
            or (lists and "items" in member.source and member.items is not None and member.items.is_text())
            for member in self.members()
        )
