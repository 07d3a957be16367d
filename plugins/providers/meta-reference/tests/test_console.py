"""The sinks of the console: what they write, and a reader that stands still or is gone."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_spans import BEGAN_NS, SECOND_NS, end, line, provider_in, request_of, start
from pydantic import SecretStr, ValidationError

from llamastack.api.telemetry import MetricEvent
from llamastack.provider import NotSupportedError
from llamastack.provider.redaction import Redactor
from llamastack_provider_meta_reference.telemetry import console, console_output
from llamastack_provider_meta_reference.telemetry.config import TelemetryConfig
from llamastack_provider_meta_reference.telemetry.console import Json, Trees
from llamastack_provider_meta_reference.telemetry.console_output import ConsoleOutput
from llamastack_telemetry import FinishedSpan, TimedEvent


def span(trace: str, own: str, parent: str | None, name: str, at_s: float = 0, **more: Any) -> FinishedSpan:
    start_ns = BEGAN_NS + int(at_s * SECOND_NS)
    return FinishedSpan(trace, own, parent, name, "internal", start_ns, start_ns + 12_345_678, **more)


def test_a_tree_is_drawn_when_the_root_has_come() -> None:
    trees = Trees()
    call, request = request_of(0)
    failed = span(
        "t", "b", "a", "part", 1, status="error", message="it broke\x1b[2J", own_attributes={"error.type": "oops"}
    )
    assert trees.of_spans([call, failed]) == []
    assert trees.of_spans([request, span("t", "a", None, "whole\nthing")]) == [
        "03:04:05.000 POST /v1/chat/completions 3.00s ok",
        "03:04:06.000   chat m 1.00s ok tokens 3+5",
        "03:04:05.000 whole\\nthing 12.3ms unset",
        "03:04:06.000   part 12.3ms error oops: it broke\\x1b[2J",
    ]
    assert trees.rest() == []


def test_how_a_span_ended() -> None:
    ends: list[dict[str, Any]] = [
        {"status": "ok"},
        {"status": "unset"},
        {"own_attributes": {"http.response.status_code": 404}},
        {"own_attributes": {"http.response.status_code": 499, "llamastack.cancelled": True}},
    ]
    lines = Trees().of_spans([span("t", "a", None, "x", **end) for end in ends])
    assert [text.split()[-1] for text in lines] == ["ok", "unset", "404", "cancelled"]


def test_what_waits_for_a_root_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    trees = Trees()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    many = [span(f"{number}", "b", "gone", f"of {number}") for number in range(console._MOST_TRACES + 2)]
    assert [text.split()[1:3] for text in trees.of_spans(many)] == [["of", "0"], ["of", "1"]]
    now += console._LONGEST_WAIT_S + 1
    drawn = trees.of_spans([span("new", "b", "gone", "new")])
    assert len(drawn) == console._MOST_TRACES
    assert [text.split()[1] for text in trees.rest()] == ["new"]
    large = [span("t", f"{number}", "gone", "x") for number in range(10 * console._MOST_SPANS)]
    assert trees.of_spans(large) == []
    assert len(lines := trees.of_spans([span("t", "root", None, "root")])) == console._MOST_SPANS + 2
    assert lines[-1] == f"  and {9 * console._MOST_SPANS} more spans"


def test_spans_that_are_each_others_parents_are_counted() -> None:
    trees = Trees()
    spans = [span("t", "a", "b", "a"), span("t", "b", "a", "b"), span("t", "c", None, "c")]
    assert [text.split()[-3:] for text in trees.of_spans(spans)] == [["c", "12.3ms", "unset"], ["2", "more", "spans"]]


def test_a_json_object_for_each_span() -> None:
    odd = span("t", "a", None, "é\x1b\x7f\ud800", own_attributes={"n": float("nan"), "list": ["x"]})
    odd.events.append(TimedEvent("retry", BEGAN_NS, {"number": 1}))
    [text] = Json().of_spans([odd])
    assert text.isascii()
    assert text.isprintable()
    found = json.loads(text)
    assert found["name"] == odd.name
    assert found["attributes"] == {"n": "nan", "list": ["x"]}
    assert found["start_time"] == "2026-01-02T03:04:05+00:00"
    assert found["events"] == [
        {"name": "retry", "timestamp": "2026-01-02T03:04:05+00:00", "attributes": {"number": 1}},
    ]


def test_a_line_for_each_event() -> None:
    metric = MetricEvent(trace_id="t", span_id="a", timestamp=line("a", 0).timestamp, metric="m", value=2.5, unit="s")
    events = [line("a", 0.25, "hi\nthere"), metric, start("a", 1), end("a", 2)]
    assert [Trees().of_event(event) for event in events] == [
        "03:04:05.250 warn hi\\nthere",
        "03:04:05.000 m 2.5 s",
        "03:04:06.000 name of a begins",
        "03:04:07.000 span a ends: ok",
    ]
    assert [json.loads(Json().of_event(event))["type"] for event in events] == [
        "unstructured_log",
        "metric",
        "structured_log",
        "structured_log",
    ]


# ---- the descriptor --------------------------------------------------------------------------------------------------


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def test_secrets_are_struck_out(pipe: tuple[int, int]) -> None:
    redactor = Redactor({"api_key": SecretStr("sk-very-secret-1")})
    ConsoleOutput(pipe[1]).write(["the key is sk-very-secret-1"])
    assert b"the key is" in (written := os.read(pipe[0], 1000))
    assert b"sk-very-secret-1" not in written
    del redactor


def test_a_reader_that_stands_still_costs_lines_and_no_time(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(console_output, "_LONGEST_WAIT_S", 0.01)
    output = ConsoleOutput(pipe[1])
    lines = [f"{number:099}" for number in range(100)]
    for _ in range(100):  # far more than a pipe holds
        output.write(lines)
    before = output.dropped
    assert 0 < before < 10_000
    read = b""
    while not read.endswith(b"\n") or len(read) < (10_000 - before) * 100:
        read += os.read(pipe[0], 65536)
        output.write([])
        if len(read) < (10_000 - before) * 100:
            output.write(["more"])
    assert {len(text) for text in read.splitlines()} == {99, 4}  # no line is cut
    assert [record.getMessage() for record in caplog.records][:2] == [
        "the console takes no lines of traces; they are dropped until it does",
        f"the console takes lines of traces again; {before} are lost",
    ]


def test_lines_that_are_lost_are_counted_once_a_minute_and_at_the_end(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setattr(console_output, "_LONGEST_WAIT_S", 0)
    monkeypatch.setattr(console_output.time, "monotonic", lambda: now[0])
    output = ConsoleOutput(pipe[1])
    output.write(["x" * 1_000_000, "a", "b"])
    for _ in range(3):
        output.write(["c"])
    now[0] = 61
    output.write(["d"])
    now[0] = 90
    output.write(["e"])
    output.close()
    assert [record.getMessage() for record in caplog.records] == [
        "the console takes no lines of traces; they are dropped until it does",
        "the console did not take 6 lines of traces since the start; they are lost",
        "the console did not take 8 lines of traces since the start; they are lost",  # one of them in part
    ]


def test_a_long_line_is_written_whole(pipe: tuple[int, int]) -> None:
    ConsoleOutput(pipe[1]).write(["x" * 10_000, "y"])
    assert os.read(pipe[0], 65536) == b"x" * 10_000 + b"\ny\n"


def test_a_reader_that_is_gone_is_said_once(pipe: tuple[int, int], caplog: pytest.LogCaptureFixture) -> None:
    os.close(pipe[0])
    output = ConsoleOutput(pipe[1])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            output.write(["a line", "another"])
        output.close()
    assert [record.getMessage() for record in caplog.records] == [
        "traces are no longer written to the console: Broken pipe",
        "the console did not take 6 lines of traces since the start; they are lost",
    ]


# ---- the provider ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sinks", [["console-json", "sqlite"], ["sqlite", "console-json"]])
async def test_sinks_get_the_same(tmp_path: Path, capfd: pytest.CaptureFixture[str], sinks: list[str]) -> None:
    async with provider_in(tmp_path, sinks=sinks) as provider:
        await provider.export_spans(request_of(0))
        await provider.log_event(line("a", 0))
        assert len((await provider.list_traces()).data) == 2
    spans = [json.loads(text) for text in capfd.readouterr().out.splitlines()]
    assert [each.get("name") or each["message"] for each in spans] == ["chat m", "POST /v1/chat/completions", "hello"]


async def test_without_the_file_nothing_can_be_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with provider_in(tmp_path, sinks=["console"]) as provider:
        await provider.export_spans(request_of(0)[:1])
        for call in (provider.get_trace("t"), provider.list_traces(), provider.list_spans("t")):
            with pytest.raises(
                NotSupportedError, match="cannot be read from console: name 'sqlite' in the config 'sinks'"
            ):
                await call
    assert capfd.readouterr().out == "03:04:06.000 chat m 1.00s ok tokens 3+5\n"  # what waits is written at the end
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sinks", [[], ["file"], ["console", "console"]])
def test_wrong_sinks_are_refused(sinks: list[Any]) -> None:
    with pytest.raises(ValidationError, match="sinks"):
        TelemetryConfig(sinks=sinks)
