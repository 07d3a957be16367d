"""`llamastack doctor` hides no fault of a provider: each is a check of this provider, and the others keep theirs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml
from click.testing import CliRunner
from installed_fakes import scripted_discovery
from scripted_fake import ScriptedInference
from scripted_stacks import Scripts

from llamastack.stack import Stack
from llamastack.stack import discovery as discovery_module
from llamastack_cli.doctor import provider_checks
from llamastack_cli.doctor.advice import advice_on_config, advice_on_plugin
from llamastack_cli.group import cli
from llamastack_provider_meta_reference.telemetry.provider import MetaReferenceTelemetry
from llamastack_provider_meta_reference.telemetry.schema import APPLICATION_ID

SAMPLE = {"provider_id": "foo", "provider_type": "remote::sample"}
SCRIPTED = {"provider_id": "a", "provider_type": "scripted", "config": {"script": "a"}}
TRACES = {"provider_id": "traces", "provider_type": "meta-reference"}
Checks = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery_module, "_default", scripted_discovery(tmp_path / "site"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def failed(*options: str, status: int = 1, **providers: list[dict[str, Any]]) -> Checks:
    """The checks as JSON, by name and the thing they are about, of a doctor that found something wrong."""
    Path("run.yaml").write_text(yaml.safe_dump({"providers": providers}))
    done = CliRunner().invoke(cli, ["doctor", "run.yaml", "--json", *options])
    assert done.exit_code == status, done.output
    return {(check["check"], check["about"]): check for check in json.loads(done.stdout)["checks"]}


def raises(error: Exception) -> Any:
    async def raising(*_: Any) -> None:
        raise error

    return raising


def test_a_list_that_cannot_be_read_is_a_check_of_its_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = provider_checks.all_listed

    async def breaks(method: Any) -> AsyncIterator[Any]:
        async for item in listed(method):
            if type(item).__name__ == "Shield":
                raise KeyError("params")
            yield item

    monkeypatch.setattr(provider_checks, "all_listed", breaks)
    checks = failed(inference=[SAMPLE], safety=[SAMPLE])
    serves = checks["serves", "safety foo"]
    assert (serves["outcome"], serves["message"]) == ("FAIL", "KeyError: 'params'")
    assert serves["advice"] == "compare its config with `llamastack providers show remote::sample`"
    assert checks["call", "safety foo"]["outcome"] == "SKIPPED"
    assert checks["call", "inference foo"]["outcome"] == "OK"


def test_a_list_that_never_ends_fails_after_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(_: Any) -> AsyncIterator[Any]:
        await anyio.sleep_forever()
        yield

    monkeypatch.setattr(provider_checks, "all_listed", hangs)
    checks = failed("--timeout", "0.3", safety=[SAMPLE], telemetry=[SAMPLE])
    assert checks["serves", "safety foo"]["message"] == "no answer within 0.3 s"
    assert checks["call", "telemetry foo"]["outcome"] != "FAIL"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyError(0), "KeyError: 0"),
        (IndexError(), "IndexError"),
        (TimeoutError("the disk takes too long"), "the disk takes too long"),
        (TimeoutError(), "timed out"),
    ],
)
def test_an_unexpected_error_of_a_sink_is_shown_with_its_kind(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MetaReferenceTelemetry, "export_spans", raises(error))
    call = failed(telemetry=[TRACES])["call", "telemetry traces"]
    assert (call["outcome"], call["message"]) == ("FAIL", message)
    assert call["advice"]


def test_a_provider_that_fails_to_stop_is_a_failure(script: Scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    script("a")
    monkeypatch.setattr(ScriptedInference, "shutdown", raises(RuntimeError("the lock is gone")))
    checks = failed(inference=[SCRIPTED, SAMPLE])
    assert checks["call", "inference a"]["outcome"] == "OK"
    stop = checks["stop", "inference a"]
    assert (stop["outcome"], stop["message"]) == ("FAIL", "failed to shut down: RuntimeError: the lock is gone")
    assert "the authors of the package of `scripted`" in stop["advice"]
    assert ("stop", "inference foo") not in checks


def test_a_stack_that_fails_to_stop_keeps_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = Stack.stop

    async def fails(stack: Stack) -> None:
        await stop(stack)
        raise OSError("the disk is full")

    monkeypatch.setattr(Stack, "stop", fails)
    checks = failed(inference=[SAMPLE])
    assert checks["call", "inference foo"]["outcome"] == "OK"
    stack = checks["start", "the stack"]
    assert "OSError: the disk is full" in stack["message"]
    assert stack["advice"].startswith("`llamastack --debug run ")


def sqlite_file(statements: str) -> None:
    with closing(sqlite3.connect("t.sqlite")) as file:
        file.executescript(statements)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Path("t.sqlite").write_bytes(b"no database" * 1000), "file is not a database"),
        (lambda: sqlite_file("CREATE TABLE a (b)"), "it is a SQLite file of something else"),
        (
            lambda: sqlite_file(
                f"CREATE TABLE a (b); PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 99"
            ),
            "a newer version of the provider wrote it: version 99",
        ),
        (lambda: Path("t.sqlite").mkdir(), "it is not a file"),
        pytest.param(
            lambda: Path("t.sqlite").symlink_to("/proc/x/t.sqlite"),
            "nobody can make a file or folder in /proc",
            marks=pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc is a folder of Linux"),
        ),
        (lambda: Path("t.sqlite").write_bytes(b""), None),
        (lambda: sqlite_file("PRAGMA user_version = 0"), None),
    ],
)
def test_a_file_of_traces_that_cannot_be_used_is_a_failure(make: Callable[[], object], message: str | None) -> None:
    """As the provider itself finds it at a start, but without a change to the file."""
    make()
    before = [(path.name, path.stat().st_size) for path in Path().iterdir() if path.exists()]
    telemetry = {**TRACES, "config": {"path": str(Path("t.sqlite").absolute())}}
    check = failed(status=1 if message else 0, telemetry=[telemetry])["file", "telemetry traces"]
    assert check["outcome"] == ("FAIL" if message else "OK")
    assert (message or "can be used") in check["message"]
    assert bool(check["advice"]) == bool(message)
    after = [(path.name, path.stat().st_size) for path in Path().iterdir() if path.exists() and path.name != "run.yaml"]
    assert sorted(after) == sorted(before)


def test_a_variable_that_stands_for_a_number_hides_no_wrong_type() -> None:
    written = {
        "server": {"port": "${env.NOT_SET_PORT}"},
        "providers": {"inference": [{"provider_id": "a", "provider_type": "remote::opnai"}]},
    }
    Path("run.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
    done = CliRunner().invoke(cli, ["doctor", "run.yaml", "--json"])
    assert done.exit_code == 2
    found = {check["place"]["path"] for check in json.loads(done.stdout)["checks"]}
    assert found == {"server.port", "providers.inference[0].provider_type"}


@pytest.mark.parametrize(
    ("cause", "advice"),
    [
        ("'a' (acme 1) is there already, as plugin b:b", "two packages claim the same: uninstall one of them"),
        ("GET /x is claimed by a.b and by c.d", "two packages claim the same"),
        ("'a' (acme 1) cannot be loaded: ModuleNotFoundError: No module named 'x'", "a Python package is missing"),
        ("'a' (acme 1) cannot be loaded: ZeroDivisionError: oops", "upgrade its package or install it again"),
        ("'a' (acme 1) fails in llamastack_apis: oops", "the fault is in the plugin itself"),
    ],
)
def test_advice_on_a_plugin_follows_its_cause(cause: str, advice: str) -> None:
    assert advice_on_plugin(cause).startswith(advice)
    assert "LLAMASTACK_DISABLE_PLUGINS" in advice_on_plugin(cause)
    assert advice_on_config(f"there is no API; a plugin is left out: {cause}") == advice_on_plugin(cause)
