"""`llamastack traces` on a real server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from running_server import running_server

from llamastack_cli.group import cli

SERVER = """
providers:
  inference:
  - {provider_id: sample, provider_type: remote::sample}
  agents:
  - {provider_id: sample, provider_type: remote::sample}
"""
KEPT = """
  telemetry:
  - {provider_id: traces, provider_type: meta-reference}
tracing: {interval_s: 0.02}
"""
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CLIENT = f"00-{TRACE}-00f067aa0ba902b7-01"
NAMES = ["POST /v1/chat/completions", "chat sample-echo"]
OTHER = "5bf92f3577b34da6a3ce929d0e0e9999"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("traces")
    config = folder / "run.yaml"
    config.write_text(SERVER + KEPT, encoding="utf-8")
    with running_server(config, home=folder) as server:
        chat(server.url, traceparent=CLIENT)
        chat(server.url, traceparent=CLIENT.replace(TRACE, OTHER))
        wait_for(lambda: len(listed(server.url)) == 2 and all(trace["spans"] == 2 for trace in listed(server.url)))
        yield server.url


def chat(url: str, **headers: str) -> None:
    body = {"model": "sample-echo", "messages": [{"role": "user", "content": "Hi"}]}
    httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers).raise_for_status()


def wait_for(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def listed(url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{url}/telemetry/list_traces?limit=1000").json()["data"]
    return found


def run(url: str, *arguments: str, columns: int = 100) -> Result:
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(cli, ["traces", *arguments, "--url", url])


def test_the_list(url: str) -> None:
    done = run(url, "list", "--since", "1d")
    assert done.exit_code == 0, done.output
    head, *rows = done.stdout.splitlines()
    assert head.split("  ")[0].strip() == "time"
    assert head.split()[:6] == ["time", "trace", "name", "duration", "spans", "status"]
    assert [re.search(r":\d\d  (\w{8})  ", row)[1] for row in rows] == [OTHER[-8:], TRACE[-8:]]  # type: ignore[index]
    assert all(" POST /v1/chat/completions " in row and re.search(r"  2 +ok\b", row) for row in rows)


def test_a_trace_whose_root_has_no_status_has_a_dash(url: str) -> None:
    times = {"trace_id": "unfinished", "span_id": "s", "timestamp": "2019-01-01T00:00:00Z"}
    event = {**times, "type": "structured_log", "payload": {"type": "span_start", "name": "still open"}}
    httpx.post(f"{url}/telemetry/log_event", json={"event": event}).raise_for_status()
    _, row = run(url, "list", "--name", "still open").stdout.splitlines()
    assert row.endswith("  1      -")


def test_a_cost_has_its_currency(url: str) -> None:
    times = {"trace_id": "paid", "span_id": "s", "timestamp": "2019-01-01T00:00:00Z"}
    attributes = {"llamastack.cost": 0.25, "llamastack.cost.currency": "EUR"}
    event = {
        **times,
        "type": "structured_log",
        "payload": {"type": "span_start", "name": "paid"},
        "attributes": attributes,
    }
    httpx.post(f"{url}/telemetry/log_event", json={"event": event}).raise_for_status()
    _, row = run(url, "list", "--name", "paid").stdout.splitlines()
    assert row.endswith("  0.25 EUR")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--since", "1d"], [OTHER, TRACE]),
        (["--since", "2200-01-01T00:00:00Z"], []),
        (["--name", "completions"], [OTHER, TRACE]),
        (["--name", "embeddings"], []),
        (["--errors"], []),
        (["--limit", "1"], [OTHER]),
    ],
)
def test_parts_of_the_list(url: str, options: list[str], found: list[str]) -> None:
    done = run(url, "list", "--json", *options)
    assert done.exit_code == 0, done.output
    assert [trace["trace_id"] for trace in json.loads(done.stdout)] == found


def test_several_traces_whose_ids_begin_alike(url: str) -> None:
    event = {"type": "unstructured_log", "span_id": "s", "timestamp": "2020-01-01T00:00:00Z", "message": "m"}
    for trace_id in ("Same-1", "Same-2"):
        body = {"event": {**event, "trace_id": trace_id, "severity": "info"}}
        httpx.post(f"{url}/telemetry/log_event", json=body).raise_for_status()
    done = run(url, "show", "same")
    assert (done.exit_code, done.stdout) == (1, "")
    assert re.search("^error: the ids of 2 traces end or begin with 'same': Same-[12], Same-[12]$", done.stderr)
    assert run(url, "show", "same-2").stdout.startswith("trace Same-2  ")


def test_what_a_client_logs_is_drawn(url: str) -> None:
    times = {"trace_id": "logged", "span_id": "s", "timestamp": "2018-01-01T00:00:00Z"}
    log = {**times, "type": "unstructured_log", "severity": "error", "message": "the disk is full"}
    metric = {**times, "type": "metric", "metric": "queue", "value": 3, "unit": "jobs"}
    for each in (log, metric):
        httpx.post(f"{url}/telemetry/log_event", json={"event": each}).raise_for_status()
    done = run(url, "show", "logged")
    assert done.exit_code == 0, done.output
    _, root, *below = (line.strip() for line in done.stdout.splitlines())
    assert root.startswith("(not started)  ")
    assert below[0] == "its start was never logged, so its name and its parent are not known"
    assert {*below[1:]} == {"+0 us  log  error: the disk is full", "+0 us  queue  3 jobs"}


@pytest.mark.parametrize("part", [TRACE[-4:], TRACE[-8:].upper(), TRACE[:4]])
def test_a_trace_is_drawn_from_the_end_or_the_beginning_of_its_id(url: str, part: str) -> None:
    done = run(url, "show", part)
    assert done.exit_code == 0, done.output
    head, request, call = done.stdout.splitlines()
    assert head.startswith(f"trace {TRACE}  ")
    assert head.endswith("  2 spans")
    assert request.startswith("POST /v1/chat/completions  ")
    assert call.startswith("└─ chat sample-echo  ")
    assert call.endswith("  sample")
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert run(url, "show", TRACE).stdout == done.stdout
    shown = run(url, "show", TRACE, "--attributes").stdout
    assert "\n      gen_ai.request.model: sample-echo\n" in shown
    assert "└─" not in run(url, "show", TRACE, "--depth", "1").stdout
    spans = json.loads(run(url, "show", TRACE, "--json").stdout)
    assert [span["name"] for span in spans] == NAMES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4bf", "no trace '4bf' is known; the end or the beginning of an id needs 4 characters"),
        ("ffffff", "no trace has an id that ends or begins with 'ffffff'; `llamastack traces list` lists them"),
    ],
)
def test_an_unknown_trace(url: str, text: str, message: str) -> None:
    done = run(url, "show", text)
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", f"error: {message}\n")


@pytest.mark.parametrize("since", ["yesterday", "2026-11-29T10:00:00", "10", "99999999999d"])
def test_a_wrong_moment(since: str) -> None:
    done = run("http://127.0.0.1:1", "list", "--since", since)
    assert done.exit_code == 2
    assert f"'{since}' is neither like 90s, 10m, 2h, 7d nor like 2026-11-29T14:00:00Z" in done.stderr


@pytest.mark.parametrize("command", [["show"], ["list", "--name"], ["tail", "--name"]])
def test_bytes_that_are_no_text(command: list[str]) -> None:
    done = run("http://127.0.0.1:1", *command, os.fsdecode(b"\xff\xfeabcd"))
    assert done.exit_code == 2
    assert r"'\xff\xfeabcd' is not valid UTF-8 text" in done.stderr


@pytest.mark.parametrize("telemetry", ["", "  telemetry:\n  - {provider_id: sample, provider_type: remote::sample}\n"])
def test_a_server_that_keeps_no_traces(telemetry: str, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(SERVER + telemetry, encoding="utf-8")
    with running_server(config, home=tmp_path) as server:
        for command in (["list"], ["show", TRACE], ["tail"]):
            done = run(server.url, *command)
            assert done.exit_code == 1
            assert done.stderr.startswith("error: provider 'sample'" if telemetry else "error: the server has no telem")
            assert "provider_type: meta-reference\n" in done.stderr


def test_traces_are_shown_as_they_finish_although_the_server_restarts(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(SERVER + KEPT, encoding="utf-8")
    lines: list[str] = []
    with ExitStack() as all_of_it:
        with running_server(config, home=tmp_path) as server:
            chat(server.url)
            wait_for(lambda: len(listed(server.url)) == 1)
            tail = all_of_it.enter_context(tail_of(server.url, lines))
            wait_for(lambda: bool(tail.poll() is None and listed_by_tail(server.url, lines)))
            wanted = [f"{number:032x}" for number in range(1, 26)]
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda each: chat(server.url, traceparent=CLIENT.replace(TRACE, each)), wanted[:24]))
            wait_for(lambda: ids_of(lines) >= {*wanted[:24]})
        with running_server(config, home=tmp_path, port=int(server.url.rsplit(":", 1)[1])) as server:
            chat(server.url, traceparent=CLIENT.replace(TRACE, wanted[24]))
            wait_for(lambda: ids_of(lines) >= {*wanted})
            kept = {trace["trace_id"] for trace in listed(server.url)}
            tail.send_signal(signal.SIGINT)
            assert tail.wait(30) == 130
    shown = [json.loads(line) for line in lines]
    ids = [trace["trace_id"] for trace in shown]
    assert len(set(ids)) == len(ids)
    assert set(ids) <= kept
    assert all([span["name"] for span in trace["spans"]] == NAMES for trace in shown)


def ids_of(lines: list[str]) -> set[str]:
    return {json.loads(line)["trace_id"] for line in lines}


def listed_by_tail(url: str, lines: list[str]) -> bool:
    """It shows a trace that began after it did; before, it may still be starting."""
    chat(url)
    return bool(lines)


@contextmanager
def tail_of(url: str, lines: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Adds each line that it prints to `lines`."""
    command = [str(Path(sys.executable).with_name("llamastack")), "traces", "tail", "--json", "--url", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()))
        reader.start()
        try:
            yield process
        finally:
            process.kill()
            reader.join(30)
