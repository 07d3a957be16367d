"""A run config that is wrong says where, what and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import importlib_metadata
import pytest
from installed_fakes import SCRIPTED, entry_points_in, install

from llamastack.stack import ConfigError, Stack
from llamastack.stack.discovery import STORE_GROUP, Discovery

GOOD = """\
version: '2'
providers:
  inference:
  - provider_id: foo
    provider_type: scripted
    config: {port: 3}
"""


def problem(tmp_path: Path, text: str, discovery: Discovery) -> str:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Stack.from_config(file, discovery=discovery)
    return str(caught.value).replace(f"{file}", "run.yaml")


def test_a_good_one_is_read(tmp_path: Path, discovery: Discovery) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(GOOD)
    stack = Stack.from_config(str(file), discovery=discovery)
    assert stack.config.run.providers["inference"][0].provider_id == "foo"


def test_keys_of_other_tools_are_passed_over(tmp_path: Path, discovery: Discovery) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("x-mine: &base {port: 3}\n" + GOOD)
    stack = Stack.from_config(file, discovery=discovery)
    assert stack.config.value["x-mine"] == {"port": 3}
    assert "x-mine" not in stack.config.run.model_dump()
    assert "xmine: unknown field" in problem(tmp_path, "xmine: 1\n" + GOOD, discovery)


def test_sections_of_packages_that_are_not_installed_are_passed_over(tmp_path: Path) -> None:
    install(tmp_path / "site", "llamastack-provider-scripted", SCRIPTED)
    stores = list(importlib_metadata.entry_points(group=STORE_GROUP))
    without = Discovery(lambda: [*stores, *entry_points_in(tmp_path / "site", real=False)()])
    written = GOOD + "server: {port: 1}\nmetrics: {}\ntracing: {enabled: false}\nprices: {}\n"
    file = tmp_path / "run.yaml"
    file.write_text(written)
    assert Stack.from_config(file, discovery=without).config.value["tracing"] == {"enabled": False}
    assert "traces: unknown field" in problem(tmp_path, written + "traces: {}\n", without)


def test_its_files_can_be_kept_elsewhere(tmp_path: Path, discovery: Discovery) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(GOOD)
    elsewhere = tmp_path / "elsewhere"
    assert Stack.from_config(file, discovery=discovery, folder=elsewhere).config.folder == elsewhere


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("providers: [", "run.yaml:1: malformed YAML: while parsing a flow node expected the node content"),
        ("- a\n", "run.yaml: must be a mapping with the key 'providers'"),
        ("", "run.yaml: must be a mapping with the key 'providers'"),
        ("version: 1\n", "run.yaml:1: providers: required field is missing"),
        (GOOD + "provider: {}\n", "run.yaml:7: provider: unknown field"),
        (GOOD + "providers: {}\n", "run.yaml:7: providers: this key is there twice"),
        (GOOD.replace("foo", "[]"), "run.yaml:4: providers.inference[0].provider_id: Input should be a valid string"),
        (GOOD.replace("foo", "a/b"), "(is 'a/b')"),
        (GOOD.replace("port: 3", "port: x"), "run.yaml:6: providers.inference[0].config.port: Input should be a valid"),
        (GOOD.replace("port: 3", "prot: 3"), "run.yaml:6: providers.inference[0].config.prot: unknown field"),
        (GOOD.replace("port: 3", "port: '${env.NOT_SET}'"), "config.port: environment variable 'NOT_SET' is not set"),
        (GOOD.replace("port: 3", "port: '${env:X}'"), "run.yaml:6"),
        (GOOD.replace("scripted", "scriptd"), "Did you mean 'scripted' (llamastack-provider-scripted 1.2.3)?"),
        (GOOD.replace("inference", "inferense"), "run.yaml:3: providers.inferense: there is no such API"),
        (
            GOOD + "  - {provider_id: foo, provider_type: scripted}\n",
            "run.yaml:7: providers.inference[1].provider_id: 'foo' is the id of providers.inference[0] already",
        ),
        (GOOD + "apis: [inference, safety]\n", "run.yaml:7: apis[1]: API 'safety' has no provider"),
        (GOOD + "apis: [nonsense]\n", "apis[0]: there is no API 'nonsense'; allowed: inference, safety"),
        (GOOD + "models: [{identifier: x, provider_id: bar}]\n", "models[0].provider_id: 'bar' is no provider of API"),
        (GOOD + "shields: [{identifier: x, type: y}]\n", "shields[0]: API 'safety' has no provider to register it"),
        (GOOD + "models: [{identifier: x}, {identifier: x}]\n", "models[1].identifier: 'x' is there twice"),
        (GOOD + "server: {port: 70000}\n", "server.port: Input should be less than or equal to 65535 (is 70000)"),
        (GOOD + "store: {type: sqlyte}\n", "run.yaml:7: store.type: 'sqlyte' is not installed. Did you mean 'sqlite'"),
        (GOOD + "store: {type: sqlite, config: {pth: x}}\n", "run.yaml:7: store.config.pth: unknown field"),
        (
            "providers:\n  agents:\n  - {provider_id: a, provider_type: remote::sample}\n",
            "run.yaml:3: providers.agents[0]: 'remote::sample' needs API 'inference' (agents (remote::sample) -> "
            "inference), which has no provider; add one to providers.inference",
        ),
        (
            "providers:\n"
            "  inference:\n  - {provider_id: a, provider_type: needs-memory}\n"
            "  memory:\n  - {provider_id: b, provider_type: needs-inference}\n",
            "these providers need each other: ",
        ),
    ],
)
def test_a_fault_is_named_with_its_place(tmp_path: Path, discovery: Discovery, text: str, says: str) -> None:
    assert says in problem(tmp_path, text, discovery)


def test_a_cycle_prints_the_chain(tmp_path: Path, discovery: Discovery) -> None:
    text = (
        "providers:\n"
        "  inference:\n  - {provider_id: a, provider_type: needs-memory}\n"
        "  memory:\n  - {provider_id: b, provider_type: needs-inference}\n"
    )
    found = problem(tmp_path, text, discovery)
    assert any(
        chain in found
        for chain in (
            "inference (needs-memory) -> memory (needs-inference) -> inference",
            "memory (needs-inference) -> inference (needs-memory) -> memory",
        )
    )


def test_all_faults_come_at_once(tmp_path: Path, discovery: Discovery) -> None:
    text = GOOD.replace("port: 3", "port: x, bad: 1") + "  - {provider_id: foo, provider_type: nonsense}\n"
    assert len(problem(tmp_path, text, discovery).splitlines()) == 4


def test_no_such_file_and_no_such_name(tmp_path: Path, discovery: Discovery) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        Stack.from_config(tmp_path / "none.yaml", discovery=discovery)
    with pytest.raises(ConfigError, match="neither a file nor an installed run config: 'nonsense' is not installed"):
        Stack.from_config("nonsense", discovery=discovery)


@pytest.mark.parametrize(
    ("written", "environment", "read"),
    [
        ("${env.PORT:8}", {}, 8),
        ("${env.PORT:8}", {"PORT": "9"}, 9),
        ("${env.PORT:8}", {"PORT": ""}, 8),
        ("1${env.PORT}", {"PORT": "2"}, 12),
    ],
)
def test_environment_is_put_in_and_keeps_its_type(
    tmp_path: Path,
    discovery: Discovery,
    monkeypatch: pytest.MonkeyPatch,
    written: str,
    environment: dict[str, str],
    read: Any,
) -> None:
    monkeypatch.delenv("PORT", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "run.yaml"
    file.write_text(GOOD.replace("{port: 3}", f"\n      port: {written}"))
    stack = Stack.from_config(file, discovery=discovery)
    assert stack.config.run.providers["inference"][0].config == {"port": read}


def test_what_came_from_the_environment_is_not_shown(
    tmp_path: Path, discovery: Discovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORT", "sekrit-value")
    found = problem(tmp_path, GOOD.replace("port: 3", "port: '${env.PORT}'"), discovery)
    assert "sekrit-value" not in found
    assert "(is ${env.PORT})" in found


def test_what_apis_leaves_out_is_said(tmp_path: Path, discovery: Discovery) -> None:
    sample = "  - {provider_id: s, provider_type: 'remote::sample'}\n"
    text = f"providers:\n  inference:\n{sample}  agents:\n{sample}apis: [agents]\nmodels: [{{identifier: x}}]\n"
    found = problem(tmp_path, text, discovery)
    assert "models[0]: API 'inference' is left out of 'apis'" in found
    file = tmp_path / "run.yaml"
    file.write_text(text.partition("models:")[0])
    with pytest.raises(ConfigError, match="needs API 'inference' .* which is left out of 'apis'"):
        Stack.from_config(file, discovery=discovery)


def test_a_bad_secret_is_not_shown(tmp_path: Path, discovery: Discovery) -> None:
    found = problem(tmp_path, GOOD.replace("port: 3", "api_key: [hunter2]"), discovery)
    assert "hunter2" not in found
    assert "api_key" in found


def test_installed_run_config_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from installed_fakes import SCRIPTED, entry_points_in

    site, package = tmp_path / "site", tmp_path / "named_config_fake"
    package.mkdir()
    package.joinpath("run.yaml").write_text(GOOD)
    package.joinpath("__init__.py").write_text(
        "from pathlib import Path\nRUN_CONFIG = Path(__file__).parent / 'run.yaml'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    install(site, "scripted", SCRIPTED)
    install(site, "named", {"llamastack.distributions": {"mine": "named_config_fake:RUN_CONFIG"}})
    stack = Stack.from_config("mine", discovery=Discovery(entry_points_in(site)))
    assert stack.config.source == "mine (run.yaml of named 1.2.3)"
    assert stack.config.folder is not None
    assert stack.config.folder.name == "mine"


def test_the_defaults_of_the_server(tmp_path: Path, discovery: Discovery) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(GOOD)
    server = Stack.from_config(file, discovery=discovery).config.run.server
    assert (server.host, server.port, server.max_body_bytes) == ("127.0.0.1", 8321, 32 * 1024 * 1024)


def test_merge_keys_can_be_overridden(tmp_path: Path, discovery: Discovery) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(GOOD.replace("  - provider_id", "  - &foo\n    provider_id") + "  - {<<: *foo, provider_id: bar}\n")
    providers = Stack.from_config(file, discovery=discovery).config.run.providers["inference"]
    assert [(p.provider_id, p.config) for p in providers] == [("foo", {"port": 3}), ("bar", {"port": 3})]


@pytest.mark.parametrize("text", ["providers: {}", "providers: {inference: []}"])
def test_a_stack_of_nothing_is_refused(tmp_path: Path, discovery: Discovery, text: str) -> None:
    assert "no provider" in problem(tmp_path, text, discovery)


def test_nesting_has_an_end(tmp_path: Path, discovery: Discovery) -> None:
    assert problem(tmp_path, "[" * 3000, discovery) == "run.yaml: nested too deeply"


def test_credentials_in_a_url_are_not_shown(tmp_path: Path, discovery: Discovery) -> None:
    found = problem(tmp_path, GOOD.replace("port: 3", "port: 'http://u:hunter2@h'"), discovery)
    assert "(is 'http://***@h')" in found
