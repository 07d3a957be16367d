"""`llamastack providers` and `distributions`: what is installed, and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from installed_fakes import SCRIPTED, entry_points_in, install

from llamastack.stack import discovery
from llamastack.stack.discovery import Discovery
from llamastack_cli.fields import fields_of
from llamastack_cli.group import cli

INFERENCE = "llamastack.providers.inference"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(discovery, "_default", Discovery(entry_points_in(folder, real=False)))
    return folder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def test_list_has_no_status_when_all_is_well(site: Path) -> None:
    install(site, "llamastack-provider-tgi", {INFERENCE: {"remote::tgi": "scripted_fake:SPEC"}}, version="0.3.1")
    assert run("providers", "list").stdout == (
        "API        PROVIDER TYPE  PACKAGE                  VERSION\n"
        "inference  remote::tgi    llamastack-provider-tgi  0.3.1\n"
    )


def test_an_extra_that_is_missing_is_named(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "acme", {INFERENCE: {"no-tools": "scripted_fake:NO_TOOLS [big.one, big-two]"}})
    metadata = next(site.glob("*.dist-info")) / "METADATA"
    head, _, text = metadata.read_text().partition("\n\n")
    required = (
        'missing-1 (>=1) ; extra == "big_one"',
        "missing-2[x]>=1; extra == 'big-two'",
        'missing-3; extra == "other"',
        "missing-4",
        "click; extra == 'big-two'",
    )
    metadata.write_text("\n".join([head, *(f"Requires-Dist: {each}" for each in required), "", text]))
    assert "incomplete" not in run("providers", "list").stdout  # nothing is known of it before it can be imported
    monkeypatch.syspath_prepend(site)
    missing = (
        "it needs the extra 'big.one,big-two' of acme (not installed: missing-1, missing-2): "
        "pip install 'acme[big.one,big-two]'"
    )
    assert json.loads(run("providers", "list", "--json").stdout)[0]["reason"] == f"incomplete: {missing}"
    (shown,) = json.loads(run("providers", "show", "no-tools", "--json").stdout)
    assert shown["missing"] == missing


def test_list_as_json(site: Path) -> None:
    install(site, "one", {INFERENCE: {"one": "scripted_fake:SPEC"}})
    assert json.loads(run("providers", "list", "--json").stdout) == [
        {
            "api": "inference",
            "provider_type": "one",
            "package": "one",
            "version": "1.2.3",
            "status": "ok",
            "reason": None,
        }
    ]


def test_list_says_what_is_broken_disabled_or_claimed_twice(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "acme-one", {INFERENCE: {"acme": "scripted_fake:SPEC"}})
    install(site, "acme-two", {INFERENCE: {"acme": "scripted_fake:SPEC"}})
    install(site, "bad", {INFERENCE: {"gone": "package_that_is_gone:X"}})
    install(site, "off", {INFERENCE: {"off": "scripted_fake:SPEC"}})
    monkeypatch.setattr(discovery, "_default", Discovery(entry_points_in(site, real=False), disabled=["off"]))
    lines = run("providers", "list").stdout.splitlines()[1:]
    assert [line.split("1.2.3", 1)[1].strip() for line in lines] == [
        "also brought by acme-two 1.2.3: choose with 'package:'",
        "also brought by acme-one 1.2.3: choose with 'package:'",
        "broken: package 'package_that_is_gone' is not installed",
        "disabled by LLAMASTACK_DISABLE_PLUGINS",
    ]


def test_check_loads_the_specs_and_fails_for_a_broken_one(site: Path) -> None:
    install(site, "llamastack-provider-scripted", SCRIPTED)
    assert run("providers", "list", "--api", "inference").exit_code == 0
    done = run("providers", "list", "--api", "inference", "--check")
    assert done.exit_code == 1
    by_type = {line.split()[1]: line for line in done.stdout.splitlines()}
    assert "needs API version >=2.0" in by_type["future"]
    assert by_type["scripted"].endswith("ok")


def test_list_of_an_api_that_has_none_and_of_one_that_is_none(site: Path) -> None:
    done = run("providers", "list", "--api", "safety")
    assert (done.exit_code, done.stderr) == (0, "no provider is installed for API 'safety'\n")
    done = run("providers", "list", "--api", "nonsense")
    assert done.exit_code == 2
    assert "there is no API 'nonsense' for providers; allowed: inference, safety" in done.stderr


def test_show(site: Path) -> None:
    install(site, "llamastack-provider-scripted", SCRIPTED)
    shown = run("providers", "show", "no-tools").stdout
    assert shown.startswith("no-tools for API inference: ")
    for line in (
        "package     llamastack-provider-scripted 1.2.3",
        "completion  not implemented",
        "tools       unsupported",
        "FIELD    TYPE            DEFAULT    REQUIRED  DESCRIPTION",
        "api_key  secret or null  null       no",
        "port     integer         1          no",
        "Provider data (X-LlamaStack-ProviderData)",
        "scripted_api_key  string           yes",
    ):
        assert line in shown


def test_show_as_json(site: Path) -> None:
    install(site, "llamastack-provider-scripted", SCRIPTED)
    (shown,) = json.loads(run("providers", "show", "needs-memory", "--json").stdout)
    assert shown["api_dependencies"] == ["memory"]
    assert shown["config"][0] == {
        "name": "script",
        "type": "string",
        "default": '"default"',
        "required": False,
        "description": "",
    }
    assert shown["provider_data"][0]["required"]


def test_show_a_type_of_several_apis() -> None:
    assert [p["api"] for p in json.loads(run("providers", "show", "remote::sample", "--json").stdout)] == [
        "agents",
        "inference",
        "memory",
        "safety",
        "telemetry",
    ]
    (one,) = json.loads(run("providers", "show", "remote::sample", "--api", "safety", "--json").stdout)
    assert one["config"][0]["type"] == "mapping to list of string"


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["scriptd"], 2, "error: 'scriptd' is not installed. Did you mean 'scripted'?"),
        (["scriptd", "--api", "inference"], 2, "Did you mean 'scripted' (llamastack-provider-scripted 1.2.3)?"),
        (["scripted", "--api", "nonsense"], 2, "there is no API 'nonsense'"),
        (["scripted", "--api", "safety"], 2, "'scripted' is not installed for API 'safety'"),
        (["not-a-spec"], 1, "is a str, not a ProviderSpec"),
        (["gone"], 1, "No module named 'package_that_is_gone'"),
    ],
)
def test_what_cannot_be_shown(site: Path, arguments: list[str], status: int, says: str) -> None:
    install(site, "llamastack-provider-scripted", SCRIPTED)
    done = run("providers", "show", *arguments)
    assert done.exit_code == status
    assert says in done.stderr
    assert done.stdout == ""


def test_fields_of_nested_configs() -> None:
    from enum import StrEnum
    from typing import Literal

    from pydantic import BaseModel, Field, HttpUrl, SecretStr

    class Kind(StrEnum):
        a = "a"
        b = "b"

    class Leaf(BaseModel):
        key: SecretStr = Field(description="The\n key")
        inner: list[Leaf] = Field(default_factory=list)

    Leaf.model_rebuild(_types_namespace={"Leaf": Leaf})

    class Config(BaseModel):
        url: HttpUrl
        kind: Kind = Kind.a
        mode: Literal["x", 1] | None = None
        leaves: dict[str, Leaf] = Field(default_factory=dict)
        made: list[int] = Field(default_factory=lambda: [1])

    assert [(f.name, f.type, f.default, f.required) for f in fields_of(Config)] == [
        ("url", "string (uri)", None, True),
        ("kind", '"a" | "b"', '"a"', False),
        ("mode", '"x" | 1 or null', "null", False),
        ("leaves", "mapping to object", "{}", False),
        ("leaves.*.key", "secret", None, True),
        ("leaves.*.inner", "list of object", None, False),
        ("made", "list of integer", "(computed)", False),
    ]


def test_own_fields_come_before_inherited_ones_under_the_names_that_users_write() -> None:
    from pydantic import AliasChoices, BaseModel, Field

    class Base(BaseModel):
        url: str
        port: int = Field(1, validation_alias=AliasChoices("port", "tcp"))

    class Config(Base):
        key: str = Field(alias="api-key")
        tags: list[str] = Field(default_factory=list, alias="all-tags")

    assert [(f.name, f.default) for f in fields_of(Config)] == [
        ("api-key", None),
        ("all-tags", "[]"),
        ("url", None),
        ("port", "1"),
    ]


def test_distributions(site: Path) -> None:
    assert run("distributions", "list").stderr == "no run config is installed\n"
    install(site, "llamastack-starter", {"llamastack.distributions": {"mine": "scripted_fake:SPEC"}})
    discovery.default_discovery().refresh()
    assert run("distributions", "list").stdout == (
        "NAME  PACKAGE             VERSION\nmine  llamastack-starter  1.2.3\n"
    )
    assert json.loads(run("distributions", "list", "--json").stdout)[0]["name"] == "mine"


# ---- config-table ----------------------------------------------------------------------------------------------------


def test_the_table_of_a_config_is_written_into_a_readme(site: Path, tmp_path: Path) -> None:
    install(site, "acme", {INFERENCE: {"scripted": "scripted_fake:SPEC"}})
    printed = run("providers", "config-table", "scripted")
    assert printed.exit_code == 0, printed.output
    assert printed.stdout.startswith("| config | type | default | what |\n|---|---|---|---|\n| `")
    readme = tmp_path / "README.md"
    readme.write_text("# acme\n\n<!-- config -->\nold\n<!-- /config -->\n\nend\n", encoding="utf-8")
    stale = run("providers", "config-table", "scripted", "--check", str(readme))
    assert stale.exit_code == 1
    assert "has another table of the config; renew it: llamastack providers config-table scripted" in stale.stderr
    for _ in range(2):
        assert run("providers", "config-table", "scripted", "--write", str(readme)).exit_code == 0
        text = readme.read_text("utf-8")
        assert text == f"# acme\n\n<!-- config -->\n\n{printed.stdout}\n<!-- /config -->\n\nend\n"
    assert run("providers", "config-table", "scripted", "--check", str(readme)).exit_code == 0


def test_a_table_that_cannot_be_written(site: Path, tmp_path: Path) -> None:
    install(site, "acme", {INFERENCE: {"scripted": "scripted_fake:SPEC"}})
    readme = tmp_path / "README.md"
    readme.write_text("# acme\n", encoding="utf-8")
    unmarked = run("providers", "config-table", "scripted", "--write", str(readme))
    assert (unmarked.exit_code, readme.read_text("utf-8")) == (2, "# acme\n")
    assert "has no lines '<!-- config -->'" in unmarked.stderr
    unknown = run("providers", "config-table", "other")
    assert unknown.exit_code == 2
    assert "'other' is not installed. Installed: scripted." in unknown.stderr
