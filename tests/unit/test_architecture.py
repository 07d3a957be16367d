"""What the architecture promises of the code itself: sizes, types, assignments, imports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core" / "src" / "llamastack"
PACKAGES = {CORE.name: CORE} | {
    folder.name: folder
    for kind in ("surfaces", "kits", "providers", "distributions")
    for folder in sorted((ROOT / "plugins" / kind).glob("*/src/*"))
    if (folder / "__init__.py").exists()
}
EVERY_PACKAGE = pytest.mark.parametrize("package", PACKAGES)

# Bounds that go down only.
MOST_LINES = 12_175
MOST_ANY = 150
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 45
LONG_FILES: set[str] = set()
LONG_FUNCTIONS: set[str] = set()

OF_OTHERS = {
    # Python
    "*.__cause__",
    "*.__doc__",
    "*.__name__",
    "*.__qualname__",
    "*.__traceback__",
    "error.args",
    "logging.lastResort",
    "record.exc_text",
    "sys.unraisablehook",
    "threading.excepthook",
    # anyio: a deadline that moves
    "*.deadline",
    # httpx and its transports
    "made._transport",
    "made.request",
    "response.stream",
    "transport.client",
    # click
    "command.callback",
    "command.params",
    "ctx.obj",
    # onnxruntime
    "options.intra_op_num_threads",
    # PyYAML: a node that is read anew
    "document.value",
    # pytest
    "config.args",
    "report.longrepr",
    "report.outcome",
    "report.wasxfail",
    "session.exitstatus",
    # llama.cpp: what a model is loaded with
    "params.*",
    # botocore: a reply that is read as it comes
    "request.stream_output",
    "response._content",
    # uvicorn
    "cycle.body",
    "cycle.more_body",
    "cycle.on_response",
    "self.cycle.keep_alive",
    "self.server_state.total_requests",
    "server.should_exit",
}
"""Attributes of objects of the standard library and of other projects, which have no other way."""
CIRCLES_NOT_YET: dict[str, list[list[str]]] = {}


@cache
def trees(package: str) -> Mapping[str, ast.Module]:
    """The modules of a package, by their path inside it."""
    folder = PACKAGES[package]
    return {str(file.relative_to(folder)): ast.parse(file.read_text(encoding="utf-8")) for file in folder.rglob("*.py")}


# ---- sizes -----------------------------------------------------------------------------------------------------------


def lines_of(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def test_the_core_is_slim() -> None:
    total = sum(lines_of(file) for file in CORE.rglob("*.py"))
    assert total <= MOST_LINES


def test_no_file_of_the_core_is_long() -> None:
    assert {name for name in trees("llamastack") if lines_of(CORE / name) > MOST_LINES_OF_A_FILE} <= LONG_FILES


def test_no_function_of_the_core_is_long() -> None:
    found = {
        f"{name}: {node.name}"
        for name, tree in trees("llamastack").items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MOST_LINES_OF_A_FUNCTION
    }
    assert found <= LONG_FUNCTIONS


def test_the_core_has_types() -> None:
    total = sum(len(re.findall(r"\bAny\b", file.read_text(encoding="utf-8"))) for file in CORE.rglob("*.py"))
    assert total <= MOST_ANY


# ---- only a class assigns its own attributes -------------------------------------------------------------------------


def foreign_assignments(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of each assignment to an attribute of something else than the first argument of a method."""

    def visit(node: ast.AST, own: frozenset[str]) -> Iterator[tuple[int, str]]:
        for child in ast.iter_child_nodes(node):
            inside = own
            if isinstance(node, ast.ClassDef) and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                first = [argument.arg for argument in (*child.args.posonlyargs, *child.args.args)][:1]
                inside = own | set(first)
            if isinstance(child, ast.Assign | ast.AugAssign | ast.AnnAssign):
                for target in child.targets if isinstance(child, ast.Assign) else [child.target]:
                    for each in target.elts if isinstance(target, ast.Tuple | ast.List) else [target]:
                        owner = each.value if isinstance(each, ast.Attribute) else None
                        if owner is not None and not (isinstance(owner, ast.Name) and owner.id in own):
                            yield each.lineno, ast.unparse(each)
            yield from visit(child, inside)

    return visit(tree, frozenset())


def is_of_others(text: str) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in OF_OTHERS)


@EVERY_PACKAGE
def test_only_a_class_assigns_its_own_attributes(package: str) -> None:
    found = {
        f"{name}: {text}"
        for name, tree in trees(package).items()
        for _, text in foreign_assignments(tree)
        if not is_of_others(text)
    }
    assert found == set(), "give the class a method, or make a changed copy"


def test_a_foreign_assignment_is_found() -> None:
    program = """
class Own:
    def method(this, other):
        this.name = 1
        other.name, this.more = 2, 3
        this.other.name += 1

def function(thing):
    thing.name = 4
"""
    found = [text for _, text in foreign_assignments(ast.parse(program))]
    assert found == ["other.name", "this.other.name", "thing.name"]


# ---- imports ---------------------------------------------------------------------------------------------------------


def imports(package: str) -> dict[str, set[str]]:
    """Module -> modules of the same package that it imports, at once or later; not those for type checkers alone."""
    modules = {
        ".".join((package, *Path(name).with_suffix("").parts)).removesuffix(".__init__") for name in trees(package)
    }

    def of(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for each in child.orelse:
                    yield from of(each)
            elif isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module is not None:
                named = [f"{child.module}.{alias.name}" for alias in child.names]
                yield from (name if name in modules else child.module for name in named)
            else:
                yield from of(child)

    found = {}
    for name, tree in trees(package).items():
        module = ".".join((package, *Path(name).with_suffix("").parts)).removesuffix(".__init__")
        found[module] = {target for target in of(tree) if target in modules and target != module}
    return found


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of modules that reach each other (Tarjan)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    waiting: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        waiting.append(module)
        for target in graph[module]:
            if target not in number:
                visit(target)
                lowest[module] = min(lowest[module], lowest[target])
            elif target in waiting:
                lowest[module] = min(lowest[module], number[target])
        if lowest[module] == number[module]:
            group = waiting[waiting.index(module) :]
            del waiting[waiting.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in graph:
        if module not in number:
            visit(module)
    return found


@EVERY_PACKAGE
def test_no_import_goes_in_a_circle(package: str) -> None:
    assert [each for each in circles(imports(package)) if each not in CIRCLES_NOT_YET.get(package, [])] == []


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c"]]


def test_a_stack_loads_no_http_and_no_command_line() -> None:
    program = "import sys, llamastack.stack, llamastack.stack.stack\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded & {"httpx", "starlette", "uvicorn", "click", "rich", "aiohttp"} == set()
    assert "llamastack" in loaded


def test_importing_the_table_of_apis_builds_no_validator() -> None:
    program = (
        "from llamastack.api.base import WireModel\nimport llamastack.provider.builtin_apis\n"
        "found = WireModel.__subclasses__()\nprint(len(found), *(m.__name__ for m in found if m.__pydantic_complete__))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    count, *built = done.stdout.split()
    assert int(count) > 30
    assert built == []
