"""`llamastack doctor` hides no fault of a provider: each is a check of this provider, and the others keep theirs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
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
from llamastack_cli.group import cli
from llamastack_provider_meta_reference.telemetry.provider import MetaReferenceTelemetry

SAMPLE = {"provider_id": "foo", "provider_type": "remote::sample"}
SCRIPTED = {"provider_id": "a", "provider_type": "scripted", "config": {"script": "a"}}
TRACES = {"provider_id": "traces", "provider_type": "meta-reference"}
Checks = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery_module, "_default", scripted_discovery(tmp_path / "site"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def failed(*options: str, **providers: list[dict[str, Any]]) -> Checks:
    """The checks as JSON, by name and the thing they are about, of a doctor that found something wrong."""
    Path("run.yaml").write_text(yaml.safe_dump({"providers": providers}))
    done = CliRunner().invoke(cli, ["doctor", "run.yaml", "--json", *options])
    assert done.exit_code == 1, done.output
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
