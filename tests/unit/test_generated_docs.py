"""What the code generates into the documentation is fresh and whole."""

from __future__ import annotations

import re

import pytest
from pages_of_docs import (
    DOCS,
    PRESET_TYPES,
    ROOT,
    generator,
    named,
    read,
)
from workspace_tools import tool

from llamastack.provider.builtin_apis import BUILTIN_APIS
from llamastack.stack.discovery import default_discovery
from llamastack_cli.fields import fields_of


def test_the_generated_blocks_are_fresh() -> None:
    generate_docs = generator()
    blocks = 0
    for page in generate_docs.pages():
        text = page.read_text(encoding="utf-8")
        assert generate_docs.renewed(text) == text, f"{named(page)}: run 'make generate'"
        blocks += len(generate_docs.MARKED.findall(text))
        assert text.count("<!-- generated:") == len(generate_docs.MARKED.findall(text)), (
            f"{named(page)}: a block is open"
        )
    assert blocks >= 15


@pytest.mark.parametrize(
    ("page", "block"),
    [
        ("run-config.md", "run-config"),
        ("run-config.md", "run-config providers"),
        ("run-config.md", "run-config server"),
        ("run-config.md", "run-config store"),
        ("cli.md", "cli"),
        ("http-api.md", "routes"),
        ("providers.md", "new-output"),
        ("providers.md", "variants"),
        ("providers.md", "rendered-tree inference-openai"),
        ("providers.md", "rendered inference-openai src/llamastack_provider_acme/inference.py"),
        ("provider-types.md", "provider-types"),
        ("services-with-openai-api.md", "openai-services"),
        ("services-with-openai-api.md", "openai-service-sections"),
    ],
)
def test_what_must_not_go_stale_is_generated(page: str, block: str) -> None:
    assert f"<!-- generated: {block} -->" in (DOCS / page).read_text(encoding="utf-8")


def test_the_config_of_every_provider_is_generated_into_its_readme() -> None:
    for installed in default_discovery().providers():
        if installed.name in PRESET_TYPES:
            continue  # they share a config, and have a table
        folder = ROOT / "plugins" / "providers" / installed.package.removeprefix("llamastack-provider-")
        if folder.is_dir() and folder.name not in (
            "sample",
            "remote",
        ):  # which have one of each API, and hardly any config
            assert f"<!-- generated: provider-config {installed.api} {installed.name} -->" in read(
                f"plugins/providers/{folder.name}/README.md"
            )


def test_every_field_of_every_config_is_described() -> None:
    found = default_discovery()
    for installed in found.providers():
        for field in fields_of(found.load_spec(installed).load_config_class()):
            assert field.description, f"{installed.name}: {field.name}"


def test_what_happens_when_a_limit_is_met_is_in_the_table_of_settings() -> None:
    settings = tool("settings_table")
    met = {setting.strip("`"): words for setting, _, _, words in settings.rows()}
    assert set(settings.WHEN_MET) <= set(met)
    limits = [name for name in met if re.search(r"(\.|^)(max_\w+|\w+_s)$", name)]
    assert len(limits) > 10
    assert [name for name in limits if not met[name]] == []


def test_each_kind_of_object_has_its_table() -> None:
    text = read("docs/run-config.md")
    tables = {api.pair.resource_api for api in BUILTIN_APIS if api.pair is not None}
    assert set(re.findall(r"<!-- generated: objects (\S+) -->", text)) == tables


@pytest.mark.parametrize(
    ("page", "old", "new"),
    [
        ("docs/services-with-openai-api.md", "`GROQ_API_KEY`", "`GROQ_KEY`"),
        ("docs/services-with-openai-api.md", "`seed` as `random_seed`", "`seed` as `seed`"),
        ("docs/run-config.md", "| `refresh_interval_s` |", "| `refresh_s` |"),
        ("docs/run-config.md", "| `8321` |", "| `8322` |"),
        ("docs/cli.md", "Most tokens of the reply.", "Most words of the reply."),
        ("docs/http-api.md", "`/models/register`", "`/models/add`"),
        ("docs/providers.md", "class AcmeInference(", "class Acme("),
        ("docs/provider-reference.md", "| `capabilities` | `Capabilities` |", "| `abilities` | `Capabilities` |"),
        ("docs/provider-reference.md", "async def register_model(model: Model)", "async def register(model: Model)"),
    ],
)
def test_a_stale_block_is_seen(page: str, old: str, new: str) -> None:
    stale = read(page).replace(old, new)
    assert stale != read(page)
    assert generator().renewed(stale) != stale
