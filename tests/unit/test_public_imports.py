"""What ships with llamastack uses what a third party may use: names in `__all__`, and modules that the docs list."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "provider_template" / "src" / "llamastack_provider_template"
SURFACES = ROOT / "plugins" / "surfaces"
SERVER = SURFACES / "server" / "src" / "llamastack_server"
# Files by the package that they are a part of, which they may import whole.
USERS = {
    "llamastack_openai_api": [*(SURFACES / "openai-api" / "src").rglob("*.py")],
    "llamastack_server": [
        *(SERVER / name for name in ("native_endpoint.py", "native_routes.py", "plugin.py")),
        *(SERVER / "commands").glob("*.py"),
    ],
    "llamastack_provider_template": [*TEMPLATE.glob("*.py")],
}


def documented_modules() -> set[str]:
    page = (ROOT / "docs" / "plugins-and-hooks.md").read_text(encoding="utf-8")
    part = page.split("\n## What a package may import\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in part.splitlines() if line.startswith("| `")]
    return {row.strip("`") for row in rows}


def imports(file: Path, own: str) -> Iterator[tuple[str, str]]:
    """(module, name) of everything of ours that it imports from other packages."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("llamastack"):
                    yield alias.name, ""
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("llamastack"):
            for alias in node.names:
                if node.module.partition(".")[0] != own:
                    yield node.module, alias.name


def is_public(module: str, name: str, documented: set[str]) -> bool:
    found = importlib.import_module(module)
    if name.startswith("_"):
        return False
    if hasattr(found, "__path__"):
        return name in found.__all__
    if module not in documented:
        return False
    exported = getattr(found, "__all__", None)
    return name in (defined_in(Path(str(found.__file__))) if exported is None else exported)


def defined_in(file: Path) -> set[str]:
    """What a module defines, without what it imports from elsewhere."""
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize("package", USERS)
def test_only_what_is_public_is_imported(package: str) -> None:
    documented = documented_modules()
    assert USERS[package]
    private = [
        f"{file.relative_to(ROOT)}: {module}.{name}"
        for file in USERS[package]
        for module, name in imports(file, package)
        if not is_public(module, name, documented)
    ]
    assert private == []


def test_what_is_private_is_seen() -> None:
    documented = documented_modules()
    assert is_public("llamastack.stack", "Stack", documented)
    assert is_public("llamastack.provider.errors", "NotFoundError", documented)
    assert not is_public("llamastack.stack.stack", "Stack", documented)
    assert not is_public("llamastack.stack", "stack", documented)
    assert not is_public("llamastack_server.native_endpoint", "read_arguments", documented)
    assert not is_public("llamastack.provider.validation", "InvalidRequestError", documented)
    assert not is_public("llamastack.provider.errors", "_FAMILY", documented)


def test_every_documented_module_is_there() -> None:
    for module in documented_modules():
        importlib.import_module(module)
