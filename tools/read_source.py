"""What the source of a module says of its names: docstrings, words on fields, signatures as they are written."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from types import ModuleType
from typing import Any

WIDTH = 100

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def table(headers: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table; `|` in a cell is escaped."""
    lines = [f"| {' | '.join(headers)} |", "|" + "---|" * len(headers)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def signatures(code: str) -> str:
    """A block of signatures in Markdown; `python` is for what can be compiled, as tests do."""
    return f"```py\n{code.rstrip()}\n```\n"


def excerpt(path: str, text: str, names: list[str]) -> str:
    """A block with the text of a file, or with parts of it: `name` or `Class.method` of Python, `[table` of TOML.

    Raises LookupError for a part that is not there.
    """
    kinds = {".py": "python", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".jinja": "jinja"}
    kind = kinds[PurePath(path).suffix]
    if names and kind == "python":
        found = _definitions(text)
        text = "\n\n".join(found[name] for name in names if name in found)
    elif names:
        tables = re.split(r"\n(?=\[)", text)
        found = {name: part.rstrip() + "\n" for name in names for part in tables if part.startswith(name)}
        text = "\n".join(found[name] for name in names if name in found)
    if names and not found.keys() >= set(names):
        raise LookupError(f"{path} has no {', '.join(sorted(set(names) - found.keys()))}")
    return f"```{kind}\n{text.strip()}\n```\n"


def _definitions(text: str) -> dict[str, str]:
    lines = text.splitlines()
    found: dict[str, str] = {}

    def find(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            own = [getattr(node, "name", "")]
            if isinstance(node, ast.Assign):
                own = [target.id for target in node.targets if isinstance(target, ast.Name)]
            for name in own:
                found[prefix + name] = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno])) + "\n"
            if isinstance(node, ast.ClassDef):
                find(node.body, f"{node.name}.")

    find(ast.parse(text).body, "")
    return found


# ---- docstrings ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Doc:
    """A docstring: its paragraphs, and its words on arguments or fields (`name: words` or `one, other: words`)."""

    paragraphs: tuple[str, ...] = ()
    items: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The paragraphs as Markdown."""
        return "\n\n".join(self.paragraphs)

    @property
    def first(self) -> str:
        """The first paragraph in one line."""
        return self.paragraphs[0] if self.paragraphs else ""

    def with_items(self) -> str:
        """The paragraphs, then a list of the arguments."""
        listed = "\n".join(f"- `{name}`: {capital(words)}" for name, words in self.items.items())
        return "\n\n".join(part for part in (self.text, listed) if part)


def doc_of(text: str | None, names: Collection[str] = ()) -> Doc:
    """Read a docstring whose arguments or fields are `names`."""
    paragraphs: list[str] = []
    items: dict[str, str] = {}
    for block in re.split(r"\n\s*\n|\n(?=Raises )", inspect.cleandoc(text or "")):
        if block.startswith("```"):
            paragraphs.append(block)
            continue
        lines = block.splitlines()
        listed = bool(lines) and all(re.match(r"- | ", line) for line in lines)
        whole = re.sub(r"\n(?!- )\s*", " ", block) if listed else " ".join(block.split())
        prose, found = _items(whole, names)
        items |= found
        if prose:
            paragraphs.append(prose)
    return Doc(tuple(paragraphs), items)


def _items(text: str, names: Collection[str]) -> tuple[str, dict[str, str]]:
    if not names:
        return text, {}
    name = "|".join(map(re.escape, names))
    pieces = re.split(rf"(?:^|(?<=[.;] ))((?:{name})(?:, (?:{name}))*): ", text)
    found = {
        one: _sentence(words)
        for many, words in zip(pieces[1::2], pieces[2::2], strict=True)
        for one in many.split(", ")
    }
    return pieces[0].strip(), found


def _sentence(words: str) -> str:
    return words.strip().rstrip(";").removesuffix(".")


def capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def bullets(text: str | None) -> dict[str, str]:
    """The list in a docstring, name -> words: of lines that begin with a dash, and a name in backticks and a colon."""
    found = re.findall(r"^- `([^`]+)`: (.*(?:\n  .*)*)", inspect.cleandoc(text or ""), re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in found}


# ---- nodes -----------------------------------------------------------------------------------------------------------


@functools.cache
def tree(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


def class_node(cls: type) -> ast.ClassDef:
    return next(n for n in tree(_module_of(cls)).body if isinstance(n, ast.ClassDef) and n.name == cls.__name__)


def function_node(function: Any) -> _Function:
    return next(n for n in tree(_module_of(function)).body if isinstance(n, _Function) and n.name == function.__name__)


def method_nodes(cls: type) -> dict[str, _Function]:
    """The methods that a class itself defines."""
    return {node.name: node for node in class_node(cls).body if isinstance(node, _Function)}


def _module_of(found: Any) -> ModuleType:
    module = inspect.getmodule(found)
    if module is None:
        raise LookupError(f"{found!r} is of no module")
    return module


def is_property(node: _Function) -> bool:
    return any(ast.unparse(d).split(".")[-1] in ("property", "cached_property") for d in node.decorator_list)


def definitions(module: ModuleType) -> list[str]:
    """The public names that a module itself defines, in its order."""
    found: list[str] = []
    for node in tree(module).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(node.name)
        else:
            found += [one.name for one in _assigned([node])]
    return [name for name in found if not name.startswith("_")]


def values(module: ModuleType) -> dict[str, tuple[str, str]]:
    """The public names that a module assigns: their source and what is said of them below."""
    return {
        one.name: ("" if one.value is None else ast.unparse(one.value), one.words)
        for one in _assigned(tree(module).body)
        if not one.name.startswith("_")
    }


def annotations(module: ModuleType) -> dict[str, str]:
    """The types of the names that a module assigns, where they are written."""
    found = [one for one in _assigned(tree(module).body) if one.annotation is not None]
    return {one.name: ast.unparse(one.annotation) for one in found if one.annotation is not None}


@dataclass(frozen=True)
class _Assigned:
    name: str
    annotation: ast.expr | None
    value: ast.expr | None
    words: str


def _assigned(body: list[ast.stmt], *, to_self: bool = False) -> Iterator[_Assigned]:
    """What is assigned to plain names, or to attributes of `self`, with the string below it."""
    for node, after in zip(body, [*body[1:], None], strict=True):
        annotation = node.annotation if isinstance(node, ast.AnnAssign) else None
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if to_self and isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                yield _Assigned(target.attr, annotation, value, _string(after))
            elif not to_self and isinstance(target, ast.Name):
                yield _Assigned(target.id, annotation, value, _string(after))


def _string(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(node.value.value.split()).removesuffix(".")
    return ""


# ---- fields ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FieldText:
    """A field as it is written. default: None where there is none. attribute: it is set by `__init__`."""

    name: str
    type: str
    default: str | None
    words: str
    attribute: bool = False


def fields_of(cls: type, *, inherited: bool = False) -> list[FieldText]:
    """The public fields of a class and of its private bases: annotated in the body, or set by `__init__`.

    inherited: those of its public bases, too.
    """
    found: dict[str, FieldText] = {}
    for owner in reversed(cls.__mro__):
        named = inherited and owner.__module__.startswith("llamastack.")
        if owner is cls or owner.__name__.startswith("_") or named:
            for one in _own_fields(owner):
                before = found.get(one.name)
                found[one.name] = one if one.words or before is None else replace(one, words=before.words)
    return list(found.values())


def _own_fields(cls: type) -> Iterator[FieldText]:
    listed = class_doc(cls).items
    for one in _assigned(class_node(cls).body):
        if one.annotation is not None and not one.name.startswith("_"):
            words = one.words or listed.get(one.name) or _description(one.value)
            yield FieldText(one.name, ast.unparse(one.annotation), _default(one.value), words)
    made = method_nodes(cls).get("__init__")
    if made is not None:
        kinds = {a.arg: ast.unparse(a.annotation) for a in _arguments(made) if a.annotation is not None}
        for one in _assigned(made.body, to_self=True):
            if not one.name.startswith("_"):
                kind = ast.unparse(one.annotation) if one.annotation is not None else _kind_of(one.value, kinds)
                yield FieldText(one.name, kind, None, one.words or listed.get(one.name, ""), attribute=True)


def _kind_of(value: ast.expr | None, kinds: Mapping[str, str]) -> str:
    """The type of what is assigned: an argument's, or a class that is called."""
    if isinstance(value, ast.Name) and value.id in kinds:
        return kinds[value.id]
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id[0].isupper():
        return value.func.id
    return ""


def _field_call(value: ast.expr | None) -> dict[str, ast.expr]:
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in ("Field", "field"):
        return {keyword.arg: keyword.value for keyword in value.keywords if keyword.arg}
    return {}


def _description(value: ast.expr | None) -> str:
    words = _field_call(value).get("description")
    return str(ast.literal_eval(words)).removesuffix(".") if words is not None else ""


def _default(value: ast.expr | None) -> str | None:
    if value is None:
        return None
    given = _field_call(value)
    if not given:
        return ast.unparse(value)
    if "default" in given:
        return ast.unparse(given["default"])
    made = given.get("default_factory")
    if made is None:
        return None
    name = ast.unparse(made)
    return {"dict": "{}", "list": "[]"}.get(name, f"{name}()")


def class_doc(cls: type) -> Doc:
    """The class's own docstring, read with its fields and the arguments of its constructor in mind."""
    node = class_node(cls)
    names = {one.name for one in _assigned(node.body)}
    made = method_nodes(cls).get("__init__")
    if made is not None:
        names |= {argument.arg for argument in _arguments(made)}
    return doc_of(ast.get_docstring(node), sorted(names))


# ---- signatures ------------------------------------------------------------------------------------------------------


def _arguments(node: _Function) -> list[ast.arg]:
    given = node.args
    more = [argument for argument in (given.vararg, given.kwarg) if argument is not None]
    return [*given.posonlyargs, *given.args, *given.kwonlyargs, *more]


def function_doc(node: _Function) -> Doc:
    return doc_of(ast.get_docstring(node), [argument.arg for argument in _arguments(node)])


def signature(node: _Function, *, constructor_of: str | None = None) -> str:
    """`async def name(arguments) -> result`, without `self`, in lines of at most WIDTH characters.

    constructor_of: the class whose `__init__` it is, which is then called.
    """
    arguments = [argument for argument in written_arguments(node) if argument not in ("self", "cls")]
    returned = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    head = f"{'async ' if isinstance(node, ast.AsyncFunctionDef) else ''}def {node.name}"
    if constructor_of is not None:
        head, returned = constructor_of, ""
    line = f"{head}({', '.join(arguments)}){returned}"
    if len(line) <= WIDTH:
        return line
    inner = "".join(f"    {argument},\n" for argument in arguments)
    return f"{head}(\n{inner}){returned}"


def written_arguments(node: _Function) -> Iterator[str]:
    given = node.args
    plain = [*given.posonlyargs, *given.args]
    defaults: list[ast.expr | None] = [None] * (len(plain) - len(given.defaults)) + list(given.defaults)
    for argument, default in zip(plain, defaults, strict=True):
        yield _argument(argument, default)
    if given.vararg is not None:
        yield "*" + ast.unparse(given.vararg)
    elif given.kwonlyargs:
        yield "*"
    for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        yield _argument(argument, default)
    if given.kwarg is not None:
        yield "**" + ast.unparse(given.kwarg)


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    text = ast.unparse(argument)
    if default is None:
        return text
    shown = ast.unparse(default)
    if shown.startswith("_"):  # a name that is nobody's business
        shown = "..."
    return f"{text} = {shown}" if argument.annotation is not None else f"{text}={shown}"
