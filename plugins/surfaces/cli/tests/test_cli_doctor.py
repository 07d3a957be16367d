"""`llamastack doctor`: what is wrong with a run config and its providers, where, and what to do."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import access_fake
import anyio
import importlib_metadata
import pytest
import yaml
from access_fake import ACCESS, AROUND, CALLS, KEYS_PLUGIN, LISTENING
from backends.llama_server import MODEL
from backends.openai_front import OpenAIFront
from backends.otlp_receivers import fake_collector
from backends.scripted_http import ScriptedHttp, answer
from click.testing import CliRunner, Result
from installed_fakes import install, scripted_discovery
from running_server import running_server
from scripted_stacks import Scripts

from llamastack.provider.errors import InvalidRequestError, ProviderUnavailableError, RateLimitError
from llamastack.stack import Stack
from llamastack.stack import discovery as discovery_module
from llamastack.stack.discovery import Discovery
from llamastack_cli.doctor.advice import advice_on_config, advice_on_error
from llamastack_cli.group import cli
from llamastack_telemetry import FinishedSpan, SpanSink

Front = Callable[..., tuple[OpenAIFront, str]]
SAMPLE = {"provider_id": "foo", "provider_type": "remote::sample"}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery_module, "_default", scripted_discovery(tmp_path / "site"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def config(*inference: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"providers": {"inference": [*inference]}, **more}


def openai(url: str, **settings: Any) -> dict[str, Any]:
    return {"provider_id": "p", "provider_type": "remote::openai", "config": {"url": url, **settings}}


def run(written: dict[str, Any] | str, *options: str) -> Result:
    Path("run.yaml").write_text(written if isinstance(written, str) else yaml.safe_dump(written, sort_keys=False))
    return CliRunner().invoke(cli, ["doctor", "run.yaml", *options])


def checked(written: dict[str, Any] | str, *options: str, status: int) -> dict[tuple[str, str], dict[str, Any]]:
    """The checks as JSON, by name and the thing they are about."""
    done = run(written, "--json", *options)
    assert done.exit_code == status, done.output
    report = json.loads(done.stdout)
    assert report["ok"] is (status == 0)
    assert report["file"] == "run.yaml"
    return {(check["check"], check["about"]): check for check in report["checks"]}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """What is in a folder, and when it was written; SQLite's index of a log in use belongs to its readers, too."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("-shm")]
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size, path.read_bytes()) for path in sorted(files)} | {
        str(path): (0, 0, b"") for path in folder.rglob("*") if path.is_dir() or path.name.endswith("-shm")
    }


# ---- all is well -------------------------------------------------------------------------------------------------


def test_all_is_well() -> None:
    apis = ("inference", "safety", "memory", "agents", "telemetry")
    written = {"providers": {api: [dict(SAMPLE)] for api in apis}}
    done = run(written)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["RESULT", "CHECK", "OF", "SECONDS", "FOUND"]
    assert any(line.startswith("OK ") and line.endswith("one token of sample-echo") for line in lines)
    assert any(line.startswith("OK ") and line.endswith("shield sample-words") for line in lines)
    assert any(line.startswith("SKIPPED") and "not called: it has no memory bank" in line for line in lines)
    assert "FAIL" not in done.stdout
    assert lines[-1].startswith("run.yaml: ")
    assert ", 0 failed, " in lines[-1]
    assert [path.name for path in Path().iterdir()] == ["run.yaml"]
    checks = checked(written, status=0)
    assert {about for name, about in checks if name == "start"} == {f"{api} foo" for api in apis}
    assert checks["call", "inference foo"]["duration_s"] >= 0
    assert checks["start", "safety foo"]["place"] == {"file": "run.yaml", "line": 6, "path": "providers.safety[0]"}


def test_a_backend_that_answers_is_called_with_the_key_of_the_environment(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, url = front(keys={"sk-good-key-1"})
    monkeypatch.setenv("DOCTOR_KEY", "sk-good-key-1")
    checks = checked(config(openai(url, api_key="${env.DOCTOR_KEY}")), status=0)
    assert checks["environment", "variables"]["message"] == "DOCTOR_KEY (set)"
    assert checks["serves", "inference p"]["message"] == MODEL
    assert checks["call", "inference p"]["message"] == f"one token of {MODEL}"
    calls = [seen.body for seen in made.seen if seen.path.endswith("/chat/completions")]
    assert [call["model"] for call in calls] == [MODEL]
    assert 1 in calls[0].values()  # max_tokens, or its newer name


def test_what_the_config_registers_is_asked_for_and_not_kept(script: Scripts) -> None:
    a = script("a", serves=["m", "other"], accepts=["other"])
    written = config(
        {"provider_id": "a", "provider_type": "scripted", "config": {"script": "a"}},
        models=[{"identifier": "other"}, {"identifier": "none"}],
        memory_banks=[{"identifier": "bank", "type": "vector", "embedding_model": "m", "chunk_size_in_tokens": 9}],
    )
    written["providers"]["memory"] = [SAMPLE]
    checks = checked(written, status=1)
    assert checks["call", "inference a"]["message"] == "one token of other"  # that of the config first
    fault = checks["model", "inference a"]
    assert (fault["place"]["path"], fault["outcome"]) == ("models[1]", "FAIL")
    assert fault["place"]["line"] is not None
    assert "use a name that is there: other, m" in fault["advice"]
    assert ("memory bank", "memory foo") not in checks  # it would be made
    assert "those of the run config are made at a start" in checks["call", "memory foo"]["message"]
    assert [path.name for path in Path().iterdir()] == ["run.yaml"]
    assert a.shut_down == 1


# ---- what is wrong ---------------------------------------------------------------------------------------------------


def test_a_provider_that_is_down_hides_no_other() -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    written = config(openai(url, api_key="sk-secret-1"), SAMPLE)
    checks = checked(written, status=1)
    down = checks["start", "inference p"]
    assert (down["outcome"], down["place"]["path"]) == ("FAIL", "providers.inference[0]")
    assert "connection refused at http://127.0.0.1:" in down["message"]
    assert down["advice"].startswith("is the server running at http://")
    assert down["backend"] == url
    assert checks["call", "inference p"]["outcome"] == "SKIPPED"
    assert checks["call", "inference foo"]["outcome"] == "OK"
    shown = run(written)
    assert shown.exit_code == 1
    assert "what to do: is the server running at http://" in shown.stdout
    assert "where: run.yaml:3: providers.inference[0]" in shown.stdout
    assert "sk-secret-1" not in shown.output + json.dumps([*checks.values()])


def test_each_collector_is_asked_and_a_dead_one_is_a_failure() -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    with fake_collector() as (alive, collector):
        telemetry = [
            {"provider_id": name, "provider_type": "remote::opentelemetry", "config": {"endpoint": url}}
            for name, url in (("dead", dead), ("alive", alive))
        ]
        checks = checked({"providers": {"telemetry": telemetry}}, status=1)
        assert collector.seen == 1
    assert checks["call", "telemetry alive"]["outcome"] == "OK"
    failed = checks["call", "telemetry dead"]
    assert failed["outcome"] == "FAIL"
    assert f"connection refused at {dead}" in failed["message"]
    assert failed["advice"].startswith(f"is the server running at {dead}?")
    assert failed["backend"] == dead


def test_a_wrong_key(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    _, url = front(keys={"sk-good-key-1"})
    monkeypatch.setenv("DOCTOR_KEY", "sk-wrong-key-2")
    done = run(config(openai(url, api_key="${env.DOCTOR_KEY}")), "--json")
    assert done.exit_code == 1
    [failed] = [check for check in json.loads(done.stdout)["checks"] if check["outcome"] == "FAIL"]
    assert failed["advice"] == "check the key in the environment variable DOCTOR_KEY"
    assert "sk-wrong-key-2" not in done.output
    assert "set the right key: `api_key` in its config" in run(config(openai(url, api_key="sk-wrong-key-2"))).stdout


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (RateLimitError("slow down"), "wait, or raise the quota"),
        (InvalidRequestError("no chat model"), "if the model is no chat model, put one into `models`"),
        (RuntimeError("broken"), "compare its config with `llamastack providers show scripted`"),
    ],
)
def test_a_call_that_fails(script: Scripts, error: Exception, advice: str) -> None:
    script("a", fail_call=error)
    checks = checked(config({"provider_id": "a", "provider_type": "scripted", "config": {"script": "a"}}), status=1)
    assert checks["start", "inference a"]["outcome"] == "OK"
    assert checks["call", "inference a"]["outcome"] == "FAIL"
    assert advice in checks["call", "inference a"]["advice"]


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("connection refused at http://h:1", "is the server running at http://h:1/v1?"),
        ("host name not known at http://h:1", "check the spelling of the host in http://h:1/v1"),
        ("TLS failed (self-signed certificate) at https://h", "the certificate"),
        ("no connection was made in time at http://h:1", "can reach http://h:1/v1: firewall"),
        ("something else than HTTP was answered at http://h:1", "check the port"),
        ("http://h:1 answered 404; is the url right?", "check the path of http://h:1/v1"),
        ("went away", "is the server running at http://h:1/v1?"),
    ],
)
def test_advice_follows_the_words_of_the_connection(discovery: Discovery, message: str, advice: str) -> None:
    [planned] = Stack.from_config(config(openai("http://h:1/v1", api_key="k")), discovery=discovery).plan.providers
    assert advice in advice_on_error(
        ProviderUnavailableError(message), message, planned.provider_type, planned.config, []
    )


def test_a_model_that_is_no_chat_model_is_not_the_last_word(scripted_backend: ScriptedHttp) -> None:
    scripted_backend.models = ["tts", "chat"]
    chat = {"role": "assistant", "content": "Hi"}
    reply = {"id": "1", "object": "chat.completion", "created": 1, "model": "chat", "choices": []}
    choices = [{"index": 0, "message": chat, "finish_reason": "length"}]
    scripted_backend.answers.append(answer(400, {"error": {"message": "tts is no chat model"}}))
    scripted_backend.answers.append(answer(200, {**reply, "choices": choices}))
    checks = checked(config(openai(f"{scripted_backend.url}/v1", api_key="sk-1234")), status=0)
    assert checks["call", "inference p"]["message"] == "one token of chat"


def test_a_provider_that_never_starts_ends_with_the_timeout(script: Scripts) -> None:
    script("a", hang_start=True)
    written = config({"provider_id": "a", "provider_type": "scripted", "config": {"script": "a"}}, SAMPLE)
    checks = checked(written, "--timeout", "0.3", status=1)
    assert checks["start", "inference a"]["message"] == "it is not ready after 0.3 s"
    assert "--timeout" in checks["start", "inference a"]["advice"]
    assert checks["call", "inference foo"]["outcome"] == "OK"


def test_an_sdk_that_is_missing() -> None:
    checks = checked(config({"provider_id": "a", "provider_type": "no-sdk"}, SAMPLE), status=1)
    assert "sdk_that_is_not_installed" in checks["start", "inference a"]["advice"]
    assert checks["call", "inference foo"]["outcome"] == "OK"


def test_plugins_neither_refuse_nor_follow_the_calls(tmp_path: Path) -> None:
    install(tmp_path / "site", "acme-access", ACCESS)
    install(tmp_path / "site", "acme-calls", CALLS)
    access_fake.forget()
    checks = checked(config(SAMPLE), status=0)
    assert checks["call", "inference foo"]["outcome"] == "OK"
    assert (KEYS_PLUGIN.asked, AROUND.calls, LISTENING.events) == ([], [], [])


# ---- wrong configs ---------------------------------------------------------------------------------------------------

WRONG = """\
providers:
  inference:
  - provider_id: foo
    provider_type: remote::openai
    config: {api_key: "${env.NOT_SET_1}", bad: 1}
  - {provider_id: bar, provider_type: remote::sampel}
"""


def test_a_variable_that_is_not_set_hides_no_other_fault() -> None:
    done = run(WRONG, "--json")
    assert done.exit_code == 2
    found = [
        (check["check"], check["place"]["line"], check["place"]["path"], check["advice"])
        for check in json.loads(done.stdout)["checks"]
    ]
    assert [each[:3] for each in found] == [
        ("environment", 5, "providers.inference[0].config.api_key"),
        ("config", 5, "providers.inference[0].config.bad"),
        ("config", 6, "providers.inference[1].provider_type"),
    ]
    assert found[0][3] == "set it: export NOT_SET_1=..."
    shown = run(WRONG)
    assert shown.exit_code == 2
    assert "where: run.yaml:6: providers.inference[1].provider_type" in shown.stdout
    for fault in CliRunner().invoke(cli, ["config", "validate", "run.yaml"]).stderr.splitlines():
        assert fault.removeprefix("error: run.yaml:5: providers.inference[0].config.api_key: ") in shown.stdout


def test_a_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = [
        entry
        for entry in importlib_metadata.entry_points()
        if entry.dist is None or entry.dist.name != "llamastack-provider-tgi"
    ]
    monkeypatch.setattr(discovery_module, "_default", Discovery(lambda: there))
    checks = checked(
        config({"provider_id": "t", "provider_type": "remote::tgi", "config": {"url": "http://h"}}), status=2
    )
    fault = checks["packages", "providers.inference[0].provider_type"]
    assert fault["advice"] == "pip install llamastack-provider-tgi"


def test_the_advice_to_install_an_extra_is_quoted_for_a_shell() -> None:
    message = "sinks: sqlite needs more: pip install 'acme-telemetry[sqlite]'"
    assert advice_on_config(message) == "pip install 'acme-telemetry[sqlite]'"
    assert advice_on_error(ImportError(message), message, "acme", None, []) == "pip install 'acme-telemetry[sqlite]'"


def test_no_file_and_wrong_usage() -> None:
    done = CliRunner().invoke(cli, ["doctor", "none.yaml"])
    assert done.exit_code == 2
    assert "there is no such file" in done.stdout
    assert CliRunner().invoke(cli, ["doctor"]).exit_code == 2
    assert run(config(SAMPLE), "--timeout", "0").exit_code == 2


def test_a_required_plugin_that_is_broken(tmp_path: Path) -> None:
    install(tmp_path / "site", "acme-access", {"llamastack.required_plugins": {"keys": "package_that_is_gone:KEYS"}})
    checks = checked(config(SAMPLE), status=2)
    assert "package_that_is_gone" in checks["plugins", "required"]["message"]


# ---- stores and folders of running servers ---------------------------------------------------------------------------


def test_a_store_that_cannot_be_opened() -> None:
    Path("text").write_text("this is no database at all, though it is long enough to be taken for one")
    sqlite3.connect("empty").close()
    for path, fault, advice in (
        ("text", "file is not a database", "restore a copy"),
        ("text/registry", "text is a file, not a folder", "check `store.config.path`"),
        (".", "it is not a file", "check `store.config.path`"),
    ):
        place = str(Path(path).absolute())
        before = snapshot(Path())
        checks = checked(config(SAMPLE, store={"type": "sqlite", "config": {"path": place}}), status=1)
        found = checks["store", f"sqlite {place}"]
        assert fault in found["message"]
        assert advice in found["advice"]
        assert found["place"]["path"] == "store"
        assert checks["call", "inference foo"]["outcome"] == "OK"
        Path("run.yaml").unlink()
        assert snapshot(Path()) == before
    made = str(Path("not/yet/made").absolute())
    checks = checked(config(SAMPLE, store={"type": "sqlite", "config": {"path": made}}), status=0)
    assert "is not there yet" in checks["store", f"sqlite {made}"]["message"]
    assert not Path("not").exists()


def test_a_file_of_traces_is_neither_read_nor_made_nor_tidied() -> None:
    old = FinishedSpan("a" * 32, "b" * 16, None, "old", "internal", 10**18, 10**18 + 1)
    settings: dict[str, Any] = {"path": str(Path("traces.sqlite").absolute()), "keep_for_s": 60}
    traces = {"provider_id": "t", "provider_type": "meta-reference", "config": settings}

    async def keep() -> None:
        store = Stack.from_config({"providers": {"telemetry": [{**traces, "config": {"path": settings["path"]}}]}})
        async with store:
            sink = store.instances["telemetry"][0].provider
            assert isinstance(sink, SpanSink)
            await sink.export_spans([old])

    anyio.run(keep)
    with closing(sqlite3.connect("traces.sqlite")) as file:
        file.execute("UPDATE traces SET seen_s = 0")
        file.execute("UPDATE upkeep SET tidy_at = 0, tidying_until = 0")
        file.commit()
    written = {"providers": {"telemetry": [traces]}}
    Path("run.yaml").touch()
    before = snapshot(Path())
    checks = checked(written, status=0)
    Path("run.yaml").write_bytes(b"")
    assert {**snapshot(Path()), "run.yaml": None} == {**before, "run.yaml": None}
    assert checks["file", "telemetry t"]["outcome"] == "OK"
    assert checks["start", "telemetry t"]["outcome"] == "OK"
    settings["path"] = str(Path("no/such.sqlite").absolute())
    checked(written, status=0)
    assert not Path("no").exists()
    Path("text").touch()
    settings["path"] = str(Path("text/such.sqlite").absolute())
    assert "text is a file, not a folder" in checked(written, status=1)["file", "telemetry t"]["message"]


def test_beside_a_running_server_nothing_changes(tmp_path: Path) -> None:
    written = config(SAMPLE, store={"type": "sqlite"})
    written["providers"]["memory"] = [
        {"provider_id": "q", "provider_type": "remote::qdrant", "config": {"path": str(tmp_path / "work" / "q")}}
    ]
    Path("run.yaml").write_text(yaml.safe_dump(written, sort_keys=False))
    with running_server("run.yaml", home=tmp_path / "home") as server:
        before = snapshot(Path())
        checks = checked(written, status=0)
        Path("run.yaml").touch()
        after = snapshot(Path())
        [store] = [check for (name, _), check in checks.items() if name == "store"]
        assert store["message"] == "can be opened"
        assert checks["folder", "memory q"]["outcome"] == "SKIPPED"
        assert checks["start", "memory q"]["outcome"] == "OK"
        assert {k: v for k, v in after.items() if k != "run.yaml"} == {
            k: v for k, v in before.items() if k != "run.yaml"
        }
        assert server.stop() == 0
    before = snapshot(Path())
    checked(written, status=0)  # no file appears beside a store that is not in use
    after = snapshot(Path())
    assert {k: v for k, v in after.items() if k != "run.yaml"} == {k: v for k, v in before.items() if k != "run.yaml"}
