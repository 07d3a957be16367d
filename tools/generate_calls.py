"""Write core/src/llamastack/provider/typed_calls.pyi: the APIs as their callers see them, with the types of streaming.

A Protocol says that `chat_completion` gives a reply *or* a stream, which is what a provider implements. A caller knows
which, by `stream=True`; overloads say so. They follow from the Protocols, so they are generated: `make generate`.

A package with APIs of its own gets the same: `generate_calls.py acme.api:APIS src/acme/typed_calls.py`.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from llamastack.api import definition
from llamastack.api.definition import ApiDefinition, MethodDefinition
from llamastack.provider.builtin_apis import BUILTIN_APIS

TARGET = Path(__file__).parents[1] / "core" / "src" / "llamastack" / "provider" / "typed_calls.pyi"
API_FOLDER = Path(definition.__file__).parent
HEADER = '''"""The APIs as callers see them, for type checkers: generated from the Protocols by `make generate`."""

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
    """The same for the names that APIs of a package use, by the modules of their Protocols."""
    found = definers()
    for api in apis:
        module = sys.modules[api.protocol.__module__]
        for name, value in vars(module).items():
            defined = value.__module__ if isinstance(value, type) and value.__name__ == name else module.__name__
            found.setdefault(name, defined)
    return found


def plain(annotation: str) -> str:
    """The annotation without pydantic's constraints: `Annotated[list[Message], ...]` -> `list[Message]`."""

    class Strip(ast.NodeTransformer):
        def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
            self.generic_visit(node)
            if isinstance(node.value, ast.Name) and node.value.id == "Annotated" and isinstance(node.slice, ast.Tuple):
                return node.slice.elts[0]
            return node

    return ast.unparse(Strip().visit(ast.parse(annotation, mode="eval")))


def parts_of_union(annotation: str) -> list[str]:
    def walk(node: ast.expr) -> Iterator[ast.expr]:
        if isinstance(node, ast.BinOp):
            yield from walk(node.left)
            yield from walk(node.right)
        else:
            yield node

    return [ast.unparse(part) for part in walk(ast.parse(annotation, mode="eval").body)]


def signature(method: MethodDefinition, stream: str | None, returns: str) -> str:
    given: list[str] = []
    seen_default = False
    for name, parameter in method.parameters.items():
        annotation = plain(str(parameter.annotation))
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        if stream is not None and name == "stream":
            annotation, default = stream, "" if stream == "Literal[True]" else " = None"
        if not default and seen_default and "*" not in given:
            given.insert(next(place for place, text in enumerate(given) if " = " in text), "*")
        seen_default = seen_default or bool(default)
        given.append(f"{name}: {annotation}{default}")
    return f"    async def {method.name}({', '.join(['self', *given])}) -> {returns}: ...\n"


def method_text(method: MethodDefinition) -> str:
    returned = plain(str(method.signature.return_annotation))
    if method.piece is None:
        return signature(method, None, returned)
    parts = parts_of_union(returned)
    streamed = next(part for part in parts if part.startswith("AsyncIterator"))
    whole = " | ".join(part for part in parts if part != streamed)
    if not whole:
        return signature(method, None, streamed.replace("AsyncIterator", "Stream"))
    return "".join(
        f"    @overload\n{signature(method, stream, returns)}"
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
        doc = (api.protocol.__doc__ or "").strip()
        methods = "\n".join(method_text(method) for method in api.methods.values())
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
    for name, module in (
        ("Stream", "llamastack.provider.streams"),
        ("Any", "typing"),
        ("Literal", "typing"),
        ("Protocol", "typing"),
        ("overload", "typing"),
    ):
        if name in used and name not in imports.get(module, ()):
            imports.setdefault(module, []).append(name)
    for module, names in imports.items():
        missing = [name for name in names if not hasattr(importlib.import_module(module), name)]
        if missing:
            sys.exit(f"{module} has no {', '.join(missing)}")
    lines = [f"from {module} import {', '.join(sorted(names))}\n" for module, names in sorted(imports.items())]
    return HEADER + "".join(lines) + classes


def formatted(apis: Sequence[ApiDefinition] = BUILTIN_APIS, target: Path = TARGET) -> str:
    """The file as it is to be."""
    ruff = [sys.executable, "-m", "ruff"]
    text = generated(apis)
    for command in (["check", "--fix-only", "--quiet"], ["format", "--quiet"]):
        done = subprocess.run(
            [*ruff, *command, "--stdin-filename", str(target), "-"],
            input=text,
            capture_output=True,
            text=True,
            check=True,
        )
        text = done.stdout
    return text


if __name__ == "__main__":
    if len(sys.argv) == 3:
        module_name, _, attribute = sys.argv[1].partition(":")
        target = Path(sys.argv[2])
        target.write_text(formatted(getattr(importlib.import_module(module_name), attribute), target), encoding="utf-8")
    else:
        TARGET.write_text(formatted(), encoding="utf-8")
