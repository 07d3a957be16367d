"""The JSON schema of a tool's parameters. Clients write types as in JSON Schema, Python or TypeScript."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from llamastack.api.common import BuiltinTool, ToolDefinition, ToolParamDefinition
from llamastack.provider.errors import InvalidRequestError

__all__ = ["parameters_schema", "type_schema"]

Schema = dict[str, Any]

_LONGEST = 2000
_DEEPEST = 16
_TOKEN = re.compile(
    r"""\s*(?:(?P<name>[A-Za-z_][\w.]*)|(?P<number>-?\d+(?:\.\d+)?)|(?P<text>"[^"\\]*"|'[^'\\]*')"""
    r"""|(?P<sign>\[\]|\.\.\.|[\[\](){}<>,|]))"""
)
_MODULES = ("typing.", "typing_extensions.", "builtins.", "collections.abc.", "collections.", "types.", "t.")
_JSON_NAMES = {
    "string": ("str", "string", "text"),
    "integer": ("int", "integer", "long"),
    "number": ("float", "number", "double", "decimal"),
    "boolean": ("bool", "boolean"),
    "null": ("none", "nonetype", "null"),
}
_SCALARS: dict[str, Schema] = {
    **{name: {"type": kind} for kind, names in _JSON_NAMES.items() for name in names},
    "any": {},
    "unknown": {},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
    "uuid": {"type": "string", "format": "uuid"},
}
_LISTS = {"list", "array", "sequence", "mutablesequence", "iterable", "collection"}
_SETS = {"set", "frozenset", "abstractset", "mutableset"}
_MAPPINGS = {"dict", "object", "mapping", "mutablemapping", "record", "defaultdict", "ordereddict"}
_QUERY = "What to ask, in plain words"
_BUILTIN = {
    BuiltinTool.brave_search: ("query", "What to search for"),
    BuiltinTool.wolfram_alpha: ("query", _QUERY),
    BuiltinTool.photogen: ("query", "What the image is to show"),
    BuiltinTool.code_interpreter: ("code", "The code to run"),
}


def parameters_schema(tool: ToolDefinition, where: str) -> Schema:
    """The JSON schema, an object, of all parameters of `tool`.

    This is `input_schema` if the tool has one. A built-in tool without parameters gets those that models know.

    where: the path of the tool in the request, such as `tools[0]`.

    Raises InvalidRequestError, naming the path, for a `param_type` that is not understood.
    """
    if tool.input_schema:
        return tool.input_schema
    if not tool.parameters and isinstance(tool.tool_name, BuiltinTool):
        name, description = _BUILTIN[tool.tool_name]
        return _object({name: {"type": "string", "description": description}}, [name])
    parameters = tool.parameters or {}
    return _object(
        {name: _parameter(parameter, f"{where}.parameters.{name}") for name, parameter in parameters.items()},
        [name for name, parameter in parameters.items() if parameter.required],
    )


def _object(properties: Schema, required: list[str]) -> Schema:
    return {"type": "object", "properties": properties, "required": required}


def _parameter(parameter: ToolParamDefinition, where: str) -> Schema:
    schema = type_schema(parameter.param_type)
    if schema is None:
        raise InvalidRequestError(
            f"{where}.param_type: {parameter.param_type[:100]!r} is not understood; give a type of JSON Schema, such "
            "as 'string', or of Python, such as 'int', 'list[str]', 'dict[str, float]', 'Optional[bool]', "
            "\"Literal['a', 'b']\"; 'input_schema' of the tool takes a whole JSON schema",
            param=f"{where}.param_type",
        )
    if parameter.description:
        schema["description"] = parameter.description
    if parameter.default is not None:
        schema["default"] = parameter.default
    return schema


def type_schema(text: str) -> Schema | None:
    """The JSON schema of a type given as text; None if the text is not understood.

    `str`, `string`, `list[int]`, `Dict[str, float]`, `Optional[bool]`, `int | None`, `Literal['a', 'b']`, `string[]`.
    """
    if len(text) > _LONGEST:
        return None
    text = re.sub(r"<class '([\w.]+)'>", r"\1", text)
    try:
        reader = _Reader(text)
        schema = reader.union(0)
        reader.end()
    except _NotUnderstoodError:
        return None
    return schema


class _NotUnderstoodError(Exception):
    """The text is no type."""


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at, end = 0, len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            raise _NotUnderstoodError
        yield found.lastgroup, found.group(found.lastgroup)
        at = found.end()


class _Reader:
    """Reads types, one inside the other."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0

    def _next(self) -> tuple[str, str]:
        if self._at == len(self._tokens):
            raise _NotUnderstoodError
        self._at += 1
        return self._tokens[self._at - 1]

    def _took(self, *signs: str) -> bool:
        there = self._at < len(self._tokens) and self._tokens[self._at][1] in signs
        self._at += there
        return there

    def end(self) -> None:
        if self._at != len(self._tokens):
            raise _NotUnderstoodError

    def union(self, depth: int) -> Schema:
        if depth > _DEEPEST:
            raise _NotUnderstoodError
        members = [self._member(depth)]
        while self._took("|"):
            members.append(self._member(depth))
        return _union(members)

    def _member(self, depth: int) -> Schema:
        if self._took("("):
            schema = self.union(depth + 1)
            if not self._took(")"):
                raise _NotUnderstoodError
        else:
            schema = self._named(depth)
        while self._took("[]"):
            schema = {"type": "array", "items": schema}
        return schema

    def _named(self, depth: int) -> Schema:
        kind, name = self._next()
        if kind != "name":
            raise _NotUnderstoodError
        for module in _MODULES:
            name = name.removeprefix(module)
        name = name.lower()
        closing = {"[": "]", "<": ">"}.get(self._tokens[self._at][1]) if self._at < len(self._tokens) else None
        if closing is None:
            return _plain(name)
        self._at += 1
        if name == "literal":
            return self._literal(closing)
        inner: list[Schema | None] = []
        while not inner or self._took(","):
            inner.append(None if self._took("...") else self.union(depth + 1))
        if not self._took(closing):
            raise _NotUnderstoodError
        return _with_arguments(name, inner)

    def _literal(self, closing: str) -> Schema:
        values: list[Any] = []
        while not values or self._took(","):
            kind, token = self._next()
            if kind == "text":
                values.append(token[1:-1])
            elif kind == "number":
                values.append(float(token) if "." in token else int(token))
            elif token in ("True", "False", "None", "true", "false", "null"):
                values.append({"t": True, "f": False, "n": None}[token[0].lower()])
            else:
                raise _NotUnderstoodError
        if not self._took(closing):
            raise _NotUnderstoodError
        kinds = list(dict.fromkeys(_kind_of(value) for value in values))
        return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": values}


def _kind_of(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    return {str: "string", int: "integer", float: "number"}.get(type(value), "null")


def _plain(name: str) -> Schema:
    if name in _SCALARS:
        return dict(_SCALARS[name])
    if name in _LISTS or name == "tuple":
        return {"type": "array", "items": {}}
    if name in _SETS:
        return {"type": "array", "items": {}, "uniqueItems": True}
    if name in _MAPPINGS:
        return {"type": "object"}
    raise _NotUnderstoodError


def _with_arguments(name: str, inner: list[Schema | None]) -> Schema:
    """`name[inner]`; None stands for `...`."""
    types = [each for each in inner if each is not None]
    if name == "tuple" and types:
        if inner[-1] is None and len(inner) == 2:
            return {"type": "array", "items": types[0]}
        if len(types) == len(inner):
            return {"type": "array", "items": _union(types), "minItems": len(types), "maxItems": len(types)}
    if len(types) != len(inner):
        raise _NotUnderstoodError
    if name == "union":
        return _union(types)
    if len(types) == 1:
        if name == "optional":
            return _union([*types, {"type": "null"}])
        if name in ("annotated", "required", "notrequired", "final"):
            return types[0]
        if name in _LISTS | _SETS:
            return {**_plain(name), "items": types[0]}
    # The keys of a JSON object are always strings, whatever the mapping says.
    if len(types) == 2 and name in _MAPPINGS:
        return {"type": "object", "additionalProperties": types[1]}
    raise _NotUnderstoodError


def _union(members: list[Schema]) -> Schema:
    """One schema with several types, if that is possible: many backends do not support `anyOf` in a parameter."""
    different: list[Schema] = []
    for member in members:
        for each in member.get("anyOf", [member]):
            if each not in different:
                different.append(each)
    if len(different) == 1:
        return different[0]
    if {} in different:
        return {}
    types = [kind for each in different for kind in _as_list(each.get("type"))]
    enums = [each["enum"] for each in different if "enum" in each]
    others = [each for each in different if "enum" not in each]
    if len(types) == len(set(types)):
        merged: Schema = {"type": types}
        for each in different:
            merged |= {key: value for key, value in each.items() if key not in ("type", "enum")}
        if not enums:
            return merged
        if all(each == {"type": "null"} for each in others):
            return {**merged, "enum": [*(value for enum in enums for value in enum), *(None for _ in others)]}
    return {"anyOf": different}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
