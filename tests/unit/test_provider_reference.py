"""The reference for provider authors has all that they import, and says something of each."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from reference_pages import ReferencePage, rows
from workspace_tools import tool

from llamastack import api as vocabulary
from llamastack import provider
from llamastack.provider import (
    AuthenticationError,
    Capabilities,
    Deps,
    InlineProviderSpec,
    LlamaStackError,
    ProviderSpec,
    RemoteProviderSpec,
)
from llamastack.provider.builtin_apis import BUILTIN_APIS
from llamastack.provider.compliance import check_provider

PROVIDER_FOLDER = Path(str(provider.__file__)).parent
API_FOLDER = Path(str(vocabulary.__file__)).parent
OF_THE_STACK = {
    "api_handle",
    "backoff",
    "builtin_apis",  # the table of APIs, for plugins that add one
    "compliance",
    "error_translation",
    "errors_from_wire",
    "import_path",
    "control_characters",
    "redaction",
    "secret_forms",
    "descriptor_shortage",
    "memory_store",
    "store",  # for authors of stores; docs/state.md
    "typed_calls",  # the APIs as callers see them
    "validation",
    "validation_paths",
}
"""Modules of `llamastack.provider` that the other layers use, and providers need not."""

reference = tool("provider_reference")
reference_text = tool("reference_text")
source = tool("read_source")


PAGE = ReferencePage("provider-reference.md")


# ---- it is all there -------------------------------------------------------------------------------------------------


def test_every_block_is_on_the_page() -> None:
    used = re.findall(r"<!-- generated: (\S+)(?: (\S+))? -->", PAGE.text)
    assert {name for name, _ in used} == set(reference.BLOCKS)
    assert [argument for name, argument in used if name == "api"] == [a.name for a in reference_text.IMPLEMENTED]
    assert {argument for name, argument in used if name == "types"} == set(reference_text.TYPE_MODULES)
    assert [argument for name, argument in used if name == "helper"] == list(reference.HELPERS)


def test_the_page_is_headings_and_blocks() -> None:
    assert PAGE.by_hand() == []


def test_every_public_name_is_on_the_page() -> None:
    named = PAGE.names()
    assert [name for name in provider.__all__ if name not in named and name != "Api"] == []
    assert {f"Api.{api.name}" for api in vocabulary.Api} <= named
    for module in reference.HELPERS:
        assert [name for name in reference.helper_names(module) if name not in named] == [], module


def test_every_module_is_for_authors_or_for_the_stack() -> None:
    own = {sys_module(name) for name in provider.__all__} | {"__init__"}
    files = {file.stem for file in PROVIDER_FOLDER.iterdir() if file.suffix == ".py" or (file / "__init__.py").exists()}
    helpers = {name.rpartition(".")[2] for name in reference.HELPERS}
    assert files - own - helpers == OF_THE_STACK


def sys_module(name: str) -> str:
    found = getattr(provider, name)
    return "hookspecs" if name == "hookimpl" else str(found.__module__).rpartition(".")[2]


def test_every_module_of_types_is_on_the_page() -> None:
    implemented = {api.protocol.__module__ for api in BUILTIN_APIS if not api.implemented_by_stack}
    tables = {api.protocol.__module__ for api in BUILTIN_APIS if api.pair is not None}
    wanted = {module.rpartition(".")[2] for module in implemented | tables}
    assert set(reference_text.TYPE_MODULES) == wanted | {"base", "common"}
    elsewhere = {name for name in reference_text.type_names() if not hasattr(vocabulary, name)}
    assert elsewhere <= {"Identifier"}  # which is in `llamastack.api.base`, as the page says


def test_every_field_of_a_spec_and_of_deps_is_on_the_page() -> None:
    blocks = dict(PAGE.sections())
    assert {row[0].strip("`") for row in rows(blocks["`ProviderSpec`"])} >= {
        field.name for field in fields(ProviderSpec)
    }
    here = {name for name in vars(Deps(provider_id="x")) if not name.startswith("_")}
    here |= {name for name in vars(Deps) if not name.startswith("_")}
    assert {row[0].strip("`") for row in rows(blocks["`Deps`"])} == here


def test_every_hook_of_the_stack_is_on_the_page() -> None:
    assert reference.hook_specs().keys() <= PAGE.headings()
    for api in BUILTIN_APIS:
        if not api.implemented_by_stack:
            assert api.methods.keys() <= PAGE.headings()


# ---- something is said of each ---------------------------------------------------------------------------------------


def test_everything_is_described() -> None:
    assert PAGE.silent() == []


def test_every_error_says_when_itself() -> None:
    for cls in reference.error_family():
        assert vars(cls).get("__doc__"), cls.__name__
    assert LlamaStackError in reference.error_family()
    assert AuthenticationError in reference.error_family()


# ---- what it says is so ----------------------------------------------------------------------------------------------


def test_the_hooks_of_every_provider_are_those_that_the_stack_looks_for() -> None:
    asked: set[str] = set()

    class Asked:
        def __getattr__(self, name: str) -> Any:
            asked.add(name)

    for api in reference_text.IMPLEMENTED:
        check_provider(api, Asked(), Capabilities())
    wanted = {name for api in reference_text.IMPLEMENTED for name in api.methods}
    for pair in reference_text.PAIRS:
        wanted |= {pair.list_hook, pair.register_hook, pair.unregister_hook, pair.forget_hook, *pair.optional_hooks}
    assert set(reference_text.life_hooks()) == asked - wanted


def test_the_words_of_capabilities_are_those_that_are_taken() -> None:
    words = list(source.bullets(Capabilities.__doc__))
    assert words == ["supported", "unsupported", "not implemented", "since X"]
    for word in words:
        assert Capabilities(x=word.replace("X", "1.2"))["x"].startswith(word.removesuffix("X"))


def test_headings_do_not_collide() -> None:
    """Links go by them."""
    slugs = Counter(re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading, _ in PAGE.sections())
    assert [slug for slug, times in slugs.items() if times > 1] == []


def test_kinds_of_specs() -> None:
    blocks = {row[0]: row[1] for row in rows(dict(PAGE.sections())["The spec"])}
    assert blocks["`InlineProviderSpec`"] == f"`{InlineProviderSpec.kind}`"
    assert blocks["`RemoteProviderSpec`"] == f"`{RemoteProviderSpec.kind}`"


@pytest.mark.parametrize("name", ["Deps", "Progress", "ProviderSpec"])
def test_signatures_are_those_of_the_code(name: str) -> None:
    cls = getattr(provider, name)
    for method, node in source.method_nodes(cls).items():
        if not source.is_property(node):
            written = [a.split(":")[0].split("=")[0].strip("* ") for a in source.written_arguments(node)]
            real = list(inspect.signature(getattr(cls, method)).parameters)
            assert [w for w in written if w] == real


# ---- how the source is read ------------------------------------------------------------------------------------------


def test_a_docstring_is_read() -> None:
    doc = source.doc_of(
        """Do it.

        one: the first. two, three: the others; with a colon: here.
            It goes on.
        Raises ValueError: when it cannot.
        """,
        ["one", "two", "three"],
    )
    assert doc.paragraphs == ("Do it.", "Raises ValueError: when it cannot.")
    others = "the others; with a colon: here. It goes on"
    assert doc.items == {"one": "the first", "two": others, "three": others}
    assert doc.with_items().endswith(f"- `one`: The first\n- `two`: T{others[1:]}\n- `three`: T{others[1:]}")


def test_a_long_signature_is_broken_into_lines() -> None:
    node = ast.parse(
        "async def long(self, first: int, *rest: str, second: dict[str, list[int]] | None = None, "
        "third=_private, **more: object) -> dict[str, list[int]]: ..."
    ).body[0]
    assert source.signature(node) == (
        "async def long(\n    first: int,\n    *rest: str,\n    second: dict[str, list[int]] | None = None,\n"
        "    third=...,\n    **more: object,\n) -> dict[str, list[int]]"
    )
    short = ast.parse("def short(self, *, key: str = '') -> None: ...").body[0]
    assert source.signature(short) == "def short(*, key: str = '') -> None"


def test_fields_and_their_words_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "described_fake.py").write_text(
        '''
from dataclasses import dataclass, field


@dataclass
class _Base:
    inherited: int
    """From a private base."""


@dataclass
class Thing(_Base):
    """A thing.

    listed: in the docstring.
    """

    listed: str = "x"
    below: list[int] = field(default_factory=list)
    """Below it."""
    silent: int = 0
    _hidden: int = 0


class Made:
    def __init__(self, given: str) -> None:
        self.given = given
        """As given."""
        self._hidden = 1
        local = 2
'''
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("described_fake")
    found = {f.name: (f.type, f.default, f.words) for f in source.fields_of(module.Thing)}
    assert found == {
        "inherited": ("int", None, "From a private base"),
        "listed": ("str", "'x'", "in the docstring"),
        "below": ("list[int]", "[]", "Below it"),
        "silent": ("int", "0", ""),
    }
    assert [(f.name, f.type, f.words) for f in source.fields_of(module.Made)] == [("given", "str", "As given")]


def test_parts_of_files_are_found() -> None:
    code = "A = 1\n\n\nclass C:\n    def m(self) -> int:\n        return 1\n"
    assert (
        source.excerpt("x.py", code, ["C.m", "A"]) == "```python\ndef m(self) -> int:\n    return 1\n\n\nA = 1\n```\n"
    )
    assert source.excerpt("x.toml", "[a]\nx = 1\n\n[b]\ny = 2\n", ["[b]"]) == "```toml\n[b]\ny = 2\n```\n"
    with pytest.raises(LookupError, match=r"x\.py has no C\.n, D"):
        source.excerpt("x.py", code, ["A", "D", "C.n"])
