"""`llamastack config`, and `run` with what it must refuse: exit status 2, the place, no traceback."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import scripted_fake
from click.testing import CliRunner, Result
from installed_fakes import scripted_discovery
from scripted_fake import Script

from llamastack.stack import discovery
from llamastack_cli.group import cli

GOOD = """\
providers:
  inference:
  - provider_id: foo
    provider_type: scripted
    config: {port: 3}
"""


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "_default", scripted_discovery(tmp_path / "site"))
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def write(text: str) -> None:
    Path("run.yaml").write_text(text)


def test_a_good_one() -> None:
    write(GOOD + "  safety:\n  - {provider_id: s, provider_type: remote::sample}\n")
    done = run("config", "validate", "run.yaml")
    assert (done.exit_code, done.stdout) == (0, "run.yaml is valid: 2 providers (inference: foo; safety: s)\n")
    assert json.loads(run("config", "validate", "run.yaml", "--json").stdout) == {
        "valid": True,
        "file": "run.yaml",
        "providers": {"inference": ["foo"], "safety": ["s"]},
        "warnings": [],
    }
    assert sorted(path.name for path in Path().iterdir()) == ["run.yaml", "site"]


@pytest.mark.parametrize("command", [("config", "validate"), ("run",)])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("providers: [", "error: run.yaml:1: malformed YAML: "),
        (GOOD + "provider: {}\n", "error: run.yaml:6: provider: unknown field"),
        (GOOD.replace("foo", "[]"), "error: run.yaml:3: providers.inference[0].provider_id: Input should be"),
        (GOOD.replace("port: 3", "port: x"), "error: run.yaml:5: providers.inference[0].config.port: Input should be"),
        (
            GOOD.replace("port: 3", "port: '${env.NOT_SET}'"),
            "error: run.yaml:5: providers.inference[0].config.port: env",
        ),
        (
            GOOD.replace("scripted", "scriptd"),
            "error: run.yaml:4: providers.inference[0].provider_type: 'scriptd' is not installed for API 'inference'. "
            "Did you mean 'scripted' (llamastack-provider-scripted 1.2.3)?",
        ),
        (
            GOOD + "  - {provider_id: foo, provider_type: scripted}\n",
            "error: run.yaml:6: providers.inference[1].provider_id: 'foo' is the id of",
        ),
        (
            "providers:\n"
            "  inference:\n  - {provider_id: a, provider_type: needs-memory}\n"
            "  memory:\n  - {provider_id: b, provider_type: needs-inference}\n",
            "these providers need each other: ",
        ),
        (GOOD + "apis: [inference, safety]\n", "error: run.yaml:6: apis[1]: API 'safety' has no provider"),
    ],
)
def test_what_is_wrong_has_its_place(command: tuple[str, ...], text: str, says: str) -> None:
    write(text)
    done = run(*command, "run.yaml")
    assert done.exit_code == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_every_fault_is_an_error_line() -> None:
    write(GOOD.replace("port: 3", "port: x, bad: 1"))
    assert [line[:17] for line in run("config", "validate", "run.yaml").stderr.splitlines()] == [
        "error: run.yaml:5"
    ] * 2
    done = run("config", "validate", "run.yaml", "--json")
    assert done.exit_code == 2
    assert [(error["line"], error["path"]) for error in json.loads(done.stdout)["errors"]] == [
        (5, "providers.inference[0].config.port"),
        (5, "providers.inference[0].config.bad"),
    ]


@pytest.mark.parametrize(
    ("config_class", "why"),
    [
        ("sdk_that_is_gone.config:Config", "ModuleNotFoundError: No module named 'sdk_that_is_gone'"),
        ("scripted_fake:NoSuchClass", "AttributeError: "),
    ],
)
def test_a_config_that_could_not_be_checked(monkeypatch: pytest.MonkeyPatch, config_class: str, why: str) -> None:
    monkeypatch.setattr(scripted_fake, "SPEC", replace(scripted_fake.SPEC, config_class=config_class))
    write(GOOD.replace("port: 3", "prot: 3"))  # misspelt, which only the class would find
    done = run("config", "validate", "run.yaml")
    assert (done.exit_code, done.stdout) == (0, "run.yaml is valid: 1 provider (inference: foo)\n")
    message = f"not checked, because {config_class} cannot be loaded: {why}"
    assert done.stderr.startswith(f"warning: run.yaml:5: providers.inference[0].config: {message}")
    assert done.stderr.count("\n") == 1
    [warning] = json.loads(run("config", "validate", "run.yaml", "--json").stdout)["warnings"]
    assert (warning["line"], warning["path"]) == (5, "providers.inference[0].config")
    assert warning["message"].startswith(message)


def test_neither_file_nor_name() -> None:
    assert "error: none.yaml: there is no such file" in run("run", "none.yaml").stderr
    assert "neither a file nor an installed run config" in run("config", "validate", "nonsense").stderr


def test_schema_is_json_schema() -> None:
    schema = json.loads(run("config", "schema").stdout)
    assert schema["required"] == ["providers"]
    assert {"models", "shields", "memory_banks", "server"} <= set(schema["properties"])


def test_port_in_use() -> None:
    write(GOOD)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("run", "run.yaml", "--port", str(port))
        assert done.exit_code == 2
        assert done.stderr == f"error: cannot listen on 127.0.0.1:{port}: Address already in use\n"
        write(GOOD + f"server:\n  port: {port}\n")
        done = run("run", "run.yaml")
        assert done.exit_code == 2
        assert done.stderr == (
            f"error: run.yaml:7: server.port: cannot listen on 127.0.0.1:{port}: Address already in use\n"
        )


def test_host_that_is_none() -> None:
    write(GOOD)
    done = run("run", "run.yaml", "--host", "no such host", "--port", "0")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: host 'no such host' cannot be resolved")


def test_wrong_log_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMASTACK_LOG_LEVEL", "loud")
    done = run("run", "run.yaml")
    assert done.exit_code == 2
    assert "error: LLAMASTACK_LOG_LEVEL: 'LOUD' is not one of" in done.stderr


def test_wrong_level_of_a_logger_and_wrong_log_format(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value, error in (
        ("LLAMASTACK_LOG_LEVEL", "INFO,httpx=loud", "'LOUD' in 'httpx=loud' is not one of DEBUG, INFO"),
        ("LLAMASTACK_LOG_FORMAT", "xml", "'xml' is not one of text, json"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            done = run("run", "run.yaml")
        assert done.exit_code == 2
        assert f"error: {variable}: {error}" in done.stderr


KEYED = GOOD.replace("{port: 3}", "{port: 3, api_key: '%s'}")


@pytest.mark.parametrize("command", [("config", "validate"), ("--debug", "config", "validate"), ("--debug", "run")])
@pytest.mark.parametrize(
    "text",
    [
        KEYED % "sk-hunter2${env.X",
        KEYED % "${env.X:sk-hunter2",
        KEYED.replace("'%s'", "[sk-hunter2]"),
        KEYED.replace("'%s'", "!sk-hunter2 x"),
        KEYED.replace("'%s'", "*sk-hunter2"),
        GOOD.replace("{port: 3}", "{port: 'http://u:hunter2@h/x'}"),
        GOOD.replace("{port: 3}", "\n      password: 2024-99-99\n      secret: {key: hunter2}").replace(
            "99-99", "99-98"
        ),
        GOOD + "server: {port: 'http://u:hunter2@h'}\n",
        GOOD + "store: {type: sqlite, config: {path: [], password: hunter2}}\n",
        GOOD.replace("scripted", "nonsense").replace("port: 3", "api_key: sk-hunter2"),
    ],
)
def test_a_config_that_is_wrong_shows_no_secret(command: tuple[str, ...], text: str) -> None:
    write(text)
    done = run(*command, "run.yaml")
    assert done.exit_code == 2
    assert "error: run.yaml:" in done.stderr
    for secret in ("hunter2", "2024-99-98"):
        assert secret not in done.output


def test_the_traceback_of_a_start_that_failed_shows_no_secret(script: Callable[..., Script]) -> None:
    failure = RuntimeError("the server said: key sk-hunter2 (sk%2Dhunter2) is wrong")
    failure.add_note("sent: sk-hunter2")
    script(fail_start=failure)
    write(KEYED.replace("'%s'", '"sk-hunter2\\n"') + "on_provider_error: fail\nserver: {port: 0}\n")
    done = run("--debug", "run", "run.yaml")
    assert done.exit_code == 1
    assert "Traceback" in done.stderr
    assert "is wrong" in done.stderr
    assert "hunter2" not in done.output
