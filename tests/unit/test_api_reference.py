"""The reference for authors of APIs has all that they import, and says something of each."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from reference_pages import ReferencePage
from workspace_tools import tool

ROOT = Path(__file__).parents[2]
PAGE = ReferencePage("api-reference.md")
OTHER = ReferencePage("provider-reference.md")
EXAMPLES = sorted(
    file for pattern in ("examples/*/src", "tests/packages/*/src") for file in ROOT.glob(f"{pattern}/**/*.py")
)
MODULES = tool("api_reference").API_MODULES
public = tool("public_modules")


def test_every_module_is_on_the_page() -> None:
    assert re.findall(r"<!-- generated: api-helper (\S+) -->", PAGE.text) == [*MODULES]
    assert PAGE.by_hand() == []


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_of_a_module_is_on_the_page(module: str) -> None:
    assert public.public_names(module) - PAGE.headings() == set()


def test_every_list_of_public_names_that_authors_of_providers_and_apis_use_is_on_a_page() -> None:
    named = PAGE.names() | OTHER.names() | {"Api"}  # which stands there as `Api.inference` and so on
    for package in public.PACKAGES:
        # The server's are for authors of surfaces; most of `llamastack.api` are types of the built-in APIs.
        if package not in ("llamastack_server", "llamastack.api"):
            assert [name for name in public.public_names(package) if name not in named] == [], package


def imported() -> Iterator[tuple[str, str, str]]:
    """(file, module, name) of all that the examples import of llamastack."""
    for file in EXAMPLES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and re.match(r"llamastack(\.|$|_conformance)", node.module or ""):
                yield from ((file.name, str(node.module), alias.name) for alias in node.names)


def test_what_the_examples_import_is_on_a_page() -> None:
    found = [*imported()]
    assert len(found) > 40
    named = PAGE.names() | OTHER.names()
    assert [each for each in found if each[2] not in named] == []


def test_everything_is_described() -> None:
    assert PAGE.silent() == []


def test_nothing_is_there_twice() -> None:
    assert [name for name, times in Counter(heading for heading, _ in PAGE.sections()).items() if times > 1] == []
