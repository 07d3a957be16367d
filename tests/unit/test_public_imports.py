"""What ships with llamastack uses what a third party may use: the names, modules and attributes that the docs list."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from workspace_tools import tool

from llamastack.provider.builtin_apis import BUILTIN_APIS

ROOT = Path(__file__).parents[2]
public = tool("public_modules")
PUBLIC = {name for modules in public.MODULES.values() for name in modules} | {*public.PACKAGES}
SOURCES = {
    folder.name: folder
    for pattern in (
        "plugins/*/*/src/*",
        "provider_template/src/*",
        "tests/packages/*/src/*",
        "examples/*/src/*",
    )
    for folder in sorted(ROOT.glob(pattern))
    if (folder / "__init__.py").exists()
}
PAGES = [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md", *sorted(ROOT.glob("plugins/*/*/README.md"))]


def imports(text: str, own: str = "") -> Iterator[tuple[str, str]]:
    """(module, name) of everything of ours that a program imports from other packages."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found = [(node.module, alias.name) for alias in node.names]
        else:
            continue
        yield from (
            (module, name)
            for module, name in found
            if module.startswith("llamastack") and module.partition(".")[0] != own
        )


def is_public(module: str, name: str) -> bool:
    if f"{module}.{name}" in PUBLIC:
        return True
    # On pages: what a provider of that name has of its own. The example that adds an API is not one of our packages.
    if module.startswith(("llamastack_provider_", "llamastack_speech.")):
        return True
    return module in PUBLIC and name in public.public_names(module)


@pytest.mark.parametrize("package", SOURCES)
def test_only_what_is_public_is_imported(package: str) -> None:
    files = [*SOURCES[package].rglob("*.py")]
    assert files
    private = [
        f"{file.relative_to(ROOT)}: {module}.{name}"
        for file in files
        if "{{" not in file.name and "template" not in file.relative_to(SOURCES[package]).parts
        for module, name in imports(file.read_text(encoding="utf-8"), package)
        if not is_public(module, name)
    ]
    assert private == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_only_what_is_public_is_imported_in_the_docs(page: Path) -> None:
    programs = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    found = [each for program in programs for each in imports(program, "llamastack_speech")]
    assert [f"{module}.{name}" for module, name in found if not is_public(module, name)] == []


def test_every_public_module_is_used_by_a_package_or_a_page() -> None:
    used = {
        module
        for package, folder in SOURCES.items()
        for file in folder.rglob("*.py")
        if "template" not in file.relative_to(folder).parts
        for module, name in imports(file.read_text(encoding="utf-8"), package)
        for module in (module, f"{module}.{name}")
    }
    used |= {*tool("provider_reference").HELPERS}
    assert [name for name in sorted(PUBLIC - used) if "llamastack.api." not in name] == []


# ---- attributes of a stack -------------------------------------------------------------------------------------------


def documented_attributes() -> set[str]:
    page = (ROOT / "docs" / "plugins-and-hooks.md").read_text(encoding="utf-8")
    part = page.split("\n## What a stack gives a surface\n")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def attributes_of_stacks(text: str) -> Iterator[str]:
    """The attributes that a program reads of what it calls `stack`."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute):
            owner = node.value
            name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
            if name in ("stack", "Stack", "_stack"):
                yield node.attr


@pytest.mark.parametrize("package", SOURCES)
def test_only_what_is_documented_of_a_stack_is_used(package: str) -> None:
    allowed = documented_attributes() | {api.name for api in BUILTIN_APIS} | {"files", "speech"}
    files = [file for file in SOURCES[package].rglob("*.py") if "{{" not in file.name]
    used = {attribute for file in files for attribute in attributes_of_stacks(file.read_text(encoding="utf-8"))}
    assert used - allowed == set()


def test_what_is_private_is_seen() -> None:
    assert is_public("llamastack.stack", "Stack")
    assert is_public("llamastack.api", "UserMessage")
    assert is_public("llamastack.provider.errors", "NotFoundError")
    assert not is_public("llamastack.stack.stack", "Stack")
    assert not is_public("llamastack.stack", "stack")
    assert not is_public("llamastack_server.native_endpoint", "read_arguments")
    assert not is_public("llamastack.provider.validation", "InvalidRequestError")
    assert not is_public("llamastack.provider.errors", "_FAMILY")
    assert [
        *imports("import llamastack.stack.resource_routing\nfrom llamastack_cli.group import cli", "llamastack_cli")
    ] == [("llamastack.stack.resource_routing", "")]
    assert [*attributes_of_stacks("stack._tables\nself.stack.store\nother.x")] == ["_tables", "store"]


def test_every_documented_attribute_is_there() -> None:
    stack = importlib.import_module("llamastack.stack").Stack.from_config(
        {"providers": {"telemetry": [{"provider_id": "log", "provider_type": "remote::sample"}]}}
    )
    assert [name for name in documented_attributes() if not hasattr(stack, name)] == []
