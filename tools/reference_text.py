"""Classes with their fields and methods as text of docs/provider-reference.md, linked to the types it explains."""

from __future__ import annotations

import ast
import functools
import importlib
import re
from dataclasses import is_dataclass
from types import ModuleType
from typing import get_args

from pydantic import BaseModel
from read_source import (
    Doc,
    FieldText,
    bullets,
    capital,
    class_doc,
    definitions,
    fields_of,
    function_doc,
    is_property,
    method_nodes,
    signature,
    signatures,
    table,
)

from llamastack.provider import protocols
from llamastack.provider.builtin_apis import BUILTIN_APIS

IMPLEMENTED = [api for api in BUILTIN_APIS if not api.implemented_by_stack]
PAIRS = list(dict.fromkeys(api.pair for api in BUILTIN_APIS if api.pair is not None))


def fields_table(cls: type, *, named: str = "field") -> str:
    """The fields of a class with their types; without the column of defaults where there are none."""
    shown = [f for f in fields_of(cls) if words_of(f) or not _is_overridden(f, cls)]
    rows = [(f"`{f.name}`", _type_of(f, cls), _default_of(f, cls), words_of(f)) for f in shown]
    if any(row[2] for row in rows):
        return table((named, "type", "default", "what"), rows)
    return table((named, "type", "what"), [(row[0], row[1], row[3]) for row in rows]) if rows else ""


def _is_overridden(found: FieldText, cls: type) -> bool:
    return any(found.name in vars(base).get("__annotations__", {}) for base in cls.__mro__[1:])


def _default_of(found: FieldText, cls: type) -> str:
    if found.default is not None:
        return "" if _is_tag(found) else f"`{found.default}`"
    is_record = is_dataclass(cls) or issubclass(cls, (BaseModel, tuple))
    return "required" if is_record and not found.attribute else ""


def _is_tag(found: FieldText) -> bool:
    return found.type == f"Literal[{found.default}]"


def words_of(found: FieldText) -> str:
    """What is said of a field; that which tells one kind from another says it itself."""
    return capital(found.words or ("tells the kind" if _is_tag(found) else ""))


def _type_of(found: FieldText, cls: type) -> str:
    limits = _limits(cls, found.name) if "Annotated[" in found.type else ""
    return _linked(plain_type(found.type)) + limits if found.type else ""


def _linked(kind: str) -> str:
    """A type; one with a single name that this page explains leads to it."""
    names = [name for name in dict.fromkeys(re.findall(r"\w+", kind)) if name in type_names()]
    return f"[`{kind}`](#{names[0].lower()})" if len(names) == 1 else f"`{kind}`"


class _WithoutAnnotated(ast.NodeTransformer):
    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        name = ast.unparse(node.value)
        if name == "Annotated" and isinstance(node.slice, ast.Tuple):
            return node.slice.elts[0]
        return node.slice if name == "ClassVar" else node


def plain_type(annotation: str) -> str:
    return ast.unparse(_WithoutAnnotated().visit(ast.parse(annotation, mode="eval")))


_LIMITS = {
    "ge": "at least {}",
    "gt": "more than {}",
    "le": "at most {}",
    "lt": "less than {}",
    "min_length": "at least {} long",
    "max_length": "at most {} long",
}


def _limits(cls: type, name: str) -> str:
    if not issubclass(cls, BaseModel):
        return ""
    found = cls.model_fields[name]
    # Those of an optional field stand inside the union.
    places = [found.metadata, *(getattr(part, "__metadata__", ()) for part in get_args(found.annotation))]
    rules = [rule for place in places for one in place for rule in getattr(one, "metadata", [one])]
    listed = [
        words.format(getattr(rule, limit))
        for rule in rules
        for limit, words in _LIMITS.items()
        if getattr(rule, limit, None) is not None
    ]
    return f", {', '.join(listed)}" if listed else ""


def members(cls: type) -> dict[str, Doc]:
    """The public methods and properties that a class adds to its bases, and what is said of each."""
    hidden = ("_", "test_")  # a check of the conformance suite is in its tables
    own = {name: function_doc(node) for name, node in method_nodes(cls).items() if not name.startswith(hidden)}
    return {name: doc for name, doc in own.items() if doc.text or not _is_explained_elsewhere(cls, name)}


def _is_explained_elsewhere(cls: type, name: str) -> bool:
    inherited = any(name in vars(base) for base in cls.__mro__[1:])
    return inherited or name in life_hooks() or any(name in (p.unregister_hook, p.forget_hook) for p in PAIRS)


def class_text(cls: type, level: str) -> str:
    """A class: how it is made, what it is, its fields, its methods."""
    nodes = method_nodes(cls)
    text = f"{level} `{cls.__name__}`\n\n"
    made = nodes.get("__init__")
    if made is not None:
        text += signatures(signature(made, constructor_of=cls.__name__)) + "\n"
    doc = class_doc(cls)
    names = {field.name for field in fields_of(cls)}
    more = {name: words for name, words in doc.items.items() if name not in names}
    if made is not None:
        more = {**function_doc(made).items, **more}
    parts = [doc.text, bases_of(cls), Doc(items=more).with_items(), fields_table(cls), _methods(cls)]
    return text + "\n\n".join(part.strip() for part in parts if part) + "\n"


def bases_of(cls: type) -> str:
    names = [base.__name__ for base in cls.__bases__ if base.__module__.startswith("llamastack.")]
    shown = [name for name in names if not name.startswith("_") and name not in ("WireModel", "FailFast", "Apis")]
    return f"Has what {' and '.join(f'[`{name}`](#{name.lower()})' for name in shown)} has." if shown else ""


def _methods(cls: type) -> str:
    nodes, found = method_nodes(cls), members(cls)
    if not found:
        return ""
    code = [_stub(nodes[name]) for name in found]
    rows = [(f"`{name}`", in_a_row(doc)) for name, doc in found.items()]
    return f"{signatures(chr(10).join(code))}\n{table(('member', 'what'), rows)}"


def in_a_row(doc: Doc) -> str:
    return " ".join([*doc.paragraphs, *(f"`{name}`: {capital(words)}." for name, words in doc.items.items())])


def _stub(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    if is_property(node):
        return f"{node.name}: {ast.unparse(node.returns)}" if node.returns is not None else node.name
    kinds = [f"@{name}\n" for name in ("classmethod", "staticmethod") if name in map(ast.unparse, node.decorator_list)]
    return "".join(kinds) + signature(node)


def life_hooks() -> dict[str, str]:
    """The hooks that every provider may have, as the docstring of `llamastack.provider.protocols` lists them."""
    return {name: words for name, words in bullets(protocols.__doc__).items() if "*" not in name}


TYPE_MODULES = (
    "base",
    "common",
    "inference",
    "models",
    "safety",
    "shields",
    "memory",
    "memory_banks",
    "agents",
    "telemetry",
)
"""The modules of `llamastack.api` whose types providers meet."""


def api_module(name: str) -> ModuleType:
    return importlib.import_module(f"llamastack.api.{name}")


def names_in(name: str) -> list[str]:
    """What one of `TYPE_MODULES` defines beside Protocols and constants."""
    module = api_module(name)
    return [n for n in definitions(module) if "_" not in n or not n.isupper() if not is_protocol(vars(module)[n])]


def is_protocol(found: object) -> bool:
    return bool(getattr(found, "is_protocol", False))


@functools.cache
def type_names() -> frozenset[str]:
    """The names that have a heading among the types."""
    return frozenset(name for module in TYPE_MODULES for name in names_in(module))
