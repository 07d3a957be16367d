"""Writes the APIs as their callers see them, for type checkers: `python -m llamastack_conformance.typed_calls`.

A Protocol says that `chat_completion` gives a reply *or* a stream, which is what a provider implements. A caller knows
which, by `stream=True`; overloads say so. They follow from the Protocols, so they are generated.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import inspect
import subprocess
import sys
import textwrap
import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from llamastack.api import definition
from llamastack.api.definition import ApiDefinition, MethodDefinition
from llamastack.provider.builtin_apis import BUILTIN_APIS

API_FOLDER = Path(definition.__file__).parent
HEADER = '''"""The APIs as callers see them, for type checkers: generated from the Protocols.

Written by `python -m llamastack_conformance.typed_calls`; change the Protocols and run it again.
"""

from __future__ import annotations

'''


def definers() -> dict[str, str]:
    """Name -> the API module that defines it."""
    found: dict[str, str] = {}
    for file in sorted(API_FOLDER.glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            names: list[str] = []
            if isinstance(node, ast.ClassDef):
                names = [node.name]
            elif isinstance(node, ast.Assign):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            for name in names:
                found.setdefault(name, f"llamastack.api.{file.stem}")
    return found


def definers_of(apis: Iterable[ApiDefinition]) -> dict[str, str]:
    """The same for the names that APIs of a package use, by the modules of their Protocols.

    A name of the package goes before the same name of the core.
    """
    core = definers()
    found: dict[str, str] = {}
    for api in apis:
        module = sys.modules[api.protocol.__module__]
        for name, value in vars(module).items():
            if name in core and getattr(importlib.import_module(core[name]), name, None) is value:
                continue
            defined = value.__module__ if isinstance(value, type) and value.__name__ == name else module.__name__
            found.setdefault(name, defined)
    return core | found


def _without_constraints(annotation: ast.expr) -> str:
    """`Annotated[list[Message], ...]` -> `list[Message]`; no quotes around a whole annotation."""

    class Strip(ast.NodeTransformer):
        def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
            self.generic_visit(node)
            if isinstance(node.value, ast.Name) and node.value.id == "Annotated" and isinstance(node.slice, ast.Tuple):
                return node.slice.elts[0]
            return node

    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    return ast.unparse(Strip().visit(annotation))


def parts_of_union(annotation: str) -> list[str]:
    def walk(node: ast.expr) -> Iterator[ast.expr]:
        if isinstance(node, ast.BinOp):
            yield from walk(node.left)
            yield from walk(node.right)
        else:
            yield node

    return [ast.unparse(part) for part in walk(ast.parse(annotation, mode="eval").body)]


def annotations_of(api: ApiDefinition, method: MethodDefinition) -> dict[str, str]:
    """What the source of a method says of its arguments, and of `return`; pydantic's constraints are left out."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(getattr(api.protocol, method.name))))
    [function] = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    arguments = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    nodes = {argument.arg: argument.annotation for argument in arguments} | {"return": function.returns}
    return {name: _without_constraints(node) for name, node in nodes.items() if node is not None}


def signature(method: MethodDefinition, annotations: dict[str, str], stream: str | None, returns: str) -> str:
    """A method as its caller sees it. stream: the type of the argument `stream`, None for what the source says."""
    given: list[str] = []
    seen_default = False
    for name, parameter in method.parameters.items():
        annotation = annotations[name]
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        if stream is not None and name == "stream":
            annotation, default = stream, "" if stream == "Literal[True]" else " = None"
        if not default and seen_default and "*" not in given:
            given.insert(next(place for place, text in enumerate(given) if " = " in text), "*")
        seen_default = seen_default or bool(default)
        given.append(f"{name}: {annotation}{default}")
    return f"    async def {method.name}({', '.join(['self', *given])}) -> {returns}: ...\n"


def method_text(api: ApiDefinition, method: MethodDefinition) -> str:
    annotations = annotations_of(api, method)
    returned = annotations["return"]
    if method.piece is None:
        return signature(method, annotations, None, returned)
    parts = parts_of_union(returned)
    streamed = next(part for part in parts if part.startswith("AsyncIterator"))
    whole = " | ".join(part for part in parts if part != streamed)
    if not whole:
        return signature(method, annotations, None, streamed.replace("AsyncIterator", "Stream"))
    return "".join(
        f"    @overload\n{signature(method, annotations, stream, returns)}"
        for stream, returns in (
            ("Literal[True]", streamed.replace("AsyncIterator", "Stream")),
            ("Literal[False] | None", whole),
        )
    )


def class_name(api: ApiDefinition) -> str:
    return f"{api.protocol.__name__}Calls"


def generated(apis: Sequence[ApiDefinition] = BUILTIN_APIS) -> str:
    classes = ""
    for api in apis:
        doc = textwrap.indent(inspect.getdoc(api.protocol) or "", "    ").strip()
        methods = "\n".join(method_text(api, method) for method in api.methods.values())
        classes += f'\n\nclass {class_name(api)}(Protocol):\n    """{doc}"""\n\n{methods}'
    if apis is BUILTIN_APIS:
        doc = "The built-in APIs as attributes; which of them are really there depends on the run config."
        classes += f'\n\nclass Apis:\n    """{doc}"""\n\n'
        classes += "".join(f"    {api.name}: {class_name(api)}\n" for api in apis)
    used = {node.id for node in ast.walk(ast.parse(classes)) if isinstance(node, ast.Name)}
    imports: dict[str, list[str]] = {}
    for name, module in definers_of(apis).items():
        if name in used and module != "builtins" and not hasattr(typing, name):
            imports.setdefault(module, []).append(name)
    if "Stream" in used:
        imports.setdefault("llamastack.provider.streams", []).append("Stream")
    imports["typing"] = [name for name in used if hasattr(typing, name)]
    for module, names in imports.items():
        missing = [name for name in names if not hasattr(importlib.import_module(module), name)]
        if missing:
            raise ValueError(f"{module} has no {', '.join(missing)}")
    lines = [f"from {module} import {', '.join(sorted(names))}\n" for module, names in sorted(imports.items())]
    return HEADER + "".join(lines) + classes


def formatted(apis: Sequence[ApiDefinition], target: Path) -> str:
    """What `target` is to hold; in the project's format if ruff is installed."""
    text = generated(apis)
    if importlib.util.find_spec("ruff") is None:
        return text
    for command in (["check", "--fix-only", "--quiet"], ["format", "--quiet"]):
        done = subprocess.run(  # noqa: S603 - the arguments are ours
            [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(target.absolute()), "-"],
            cwd=target.absolute().parent,  # whose settings count
            input=text,
            capture_output=True,
            text=True,
            check=True,
        )
        text = done.stdout
    return text


def apis_at(place: str) -> Sequence[ApiDefinition]:
    """The APIs that `module:NAME` holds. Raises ValueError where there are none."""
    module_name, _, attribute = place.partition(":")
    try:
        apis = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{place!r} cannot be imported: {error}; wanted: module:NAME") from error
    apis = BUILTIN_APIS if apis is BUILTIN_APIS else [apis] if isinstance(apis, ApiDefinition) else apis
    if not isinstance(apis, Sequence) or not all(isinstance(api, ApiDefinition) for api in apis):
        raise ValueError(f"{place!r} holds no ApiDefinition, and no list of them")
    return apis


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m llamastack_conformance.typed_calls", description=__doc__)
    parser.add_argument("apis", metavar="MODULE:NAME", help="an ApiDefinition, or a list of them")
    parser.add_argument("file", type=Path, help="the file to write, such as src/acme/typed_calls.py")
    given = parser.parse_args(arguments)
    try:
        given.file.write_text(formatted(apis_at(given.apis), given.file), encoding="utf-8")
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
