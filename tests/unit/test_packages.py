"""Every package of the repository is whole: its files, what it declares, what it imports."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import importlib_metadata
import pytest
from projects import CORE, ROOT

PROJECTS = [CORE, *sorted((ROOT / "plugins").glob("*/*/")), ROOT / "provider_template"]
# Imported where they are installed; no package has to depend on them.
# yarl and multidict come with aiohttp, botocore with aiobotocore.
OPTIONAL = {"uvloop", "vllm", "aiohttp", "httpx_aiohttp", "httpx2", "multidict", "yarl", "botocore"}
BROUGHT_BY_THE_CORE = {"anyio", "httpx", "importlib-metadata", "pluggy", "pydantic", "pydantic-core", "pyyaml"}


def named(project: Path) -> str:
    return str(project.relative_to(ROOT))


def metadata_of(project: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_names(requirements: list[str]) -> set[str]:
    return {normalized(re.split(r"[^A-Za-z0-9_.-]", requirement)[0]) for requirement in requirements}


@functools.cache
def distributions_by_module() -> Mapping[str, list[str]]:
    return importlib_metadata.packages_distributions()


def imported_modules(project: Path) -> Iterator[tuple[str, str]]:
    """(top-level module, file) of each import at any depth, those for type checkers alone left out."""
    for file in (project / "src").rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        skipped: set[ast.AST] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                skipped.update(inner for part in node.body for inner in ast.walk(part))
        for node in ast.walk(tree):
            if node in skipped:
                continue
            if isinstance(node, ast.Import):
                yield from ((alias.name.partition(".")[0], named(file)) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0], named(file)


@pytest.mark.parametrize("project", PROJECTS, ids=named)
def test_a_package_has_its_files(project: Path) -> None:
    [package] = (project / "src").iterdir()
    for file in (project / "README.md", project / "LICENSE", package / "py.typed", package / "__init__.py"):
        assert file.exists(), named(file)


@pytest.mark.parametrize("project", PROJECTS[1:], ids=named)
def test_a_package_names_the_versions_of_ours_that_it_works_with(project: Path) -> None:
    ours = [r for r in metadata_of(project)["dependencies"] if r.startswith("llamastack")]
    assert any(re.match(r"llamastack(\[|>)", requirement) for requirement in ours)
    assert all(requirement.endswith(">=0.1,<1") for requirement in ours), ours


@pytest.mark.parametrize("project", PROJECTS, ids=named)
def test_a_package_declares_what_it_imports(project: Path) -> None:
    [package] = (project / "src").iterdir()
    metadata = metadata_of(project)
    extras = [r for listed in metadata.get("optional-dependencies", {}).values() for r in listed]
    declared = requirement_names([*metadata["dependencies"], *extras]) | BROUGHT_BY_THE_CORE
    undeclared = {
        (module, file)
        for module, file in imported_modules(project)
        if module not in sys.stdlib_module_names
        and module not in {package.name, *OPTIONAL}
        and not declared & {normalized(name) for name in distributions_by_module().get(module, [module])}
    }
    assert not undeclared


def test_the_core_brings_its_six_dependencies() -> None:
    assert requirement_names(metadata_of(CORE)["dependencies"]) == {
        "anyio",
        "httpx",
        "importlib-metadata",
        "pluggy",
        "pydantic",
        "pyyaml",
    }
