"""The provider: events of clients, reading, and a file that cannot be used for a while."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from made_spans import BEGAN_NS, at, end, line, provider_in, request_of, start

from llamastack import Stack
from llamastack.api.pagination import all_listed
from llamastack.api.telemetry import (
    Event,
    MetricEvent,
    SpanStatus,
)
from llamastack.provider import InvalidRequestError, NotFoundError, NotSupportedError, ProviderUnavailableError
from llamastack_provider_meta_reference.telemetry import sqlite_sink
from llamastack_provider_meta_reference.telemetry.provider import MetaReferenceTelemetry
from llamastack_provider_meta_reference.telemetry.trace_store import TraceStore
from llamastack_telemetry import SpanSink


async def logged(provider: MetaReferenceTelemetry, *events: Event) -> None:
    for event in events:
        await provider.log_event(event)


async def test_spans_of_a_client_are_spans(tmp_path: Path) -> None:
    metric = MetricEvent(trace_id="t", span_id="a", timestamp=at(2), metric="speed", value=7.5, unit="1/s")
    async with provider_in(tmp_path) as provider:
        assert isinstance(provider, SpanSink)
        # The end before the start, the child before its parent, a line before all.
        await logged(provider, line("a", 1, user="u"), end("b", 3, SpanStatus.error, x=2, y=2), metric, start("a", 0))
        await logged(provider, start("b", 1, "a", x=1, z=1), end("a", 4))
        trace = await provider.get_trace("t")
        [summary] = (await provider.list_traces()).data
        a, b = (await provider.list_spans("t")).data
    assert (trace.root_span_id, trace.start_time, trace.end_time) == ("a", at(0), at(4))
    assert (summary.name, summary.status, summary.spans, summary.errors) == ("name of a", SpanStatus.error, 2, 1)
    assert (a.name, a.parent_span_id, a.start_time, a.end_time, a.status) == ("name of a", None, at(0), at(4), "ok")
    assert (b.name, b.parent_span_id, b.start_time, b.end_time, b.status) == ("name of b", "a", at(1), at(3), "error")
    assert b.attributes == {"x": 2, "y": 2, "z": 1}  # what the end says goes before what the start says
    log, speed = a.events
    assert (log.name, log.timestamp) == ("log", at(1))
    assert log.attributes == {"message": "hello", "severity": "warn", "user": "u"}
    assert (speed.name, speed.timestamp, speed.attributes) == ("speed", at(2), {"value": 7.5, "unit": "1/s"})


async def test_a_trace_with_a_line_alone(tmp_path: Path) -> None:
    async with provider_in(tmp_path) as provider:
        await logged(provider, line("a", 1))
        trace = await provider.get_trace("t")
        [summary] = (await provider.list_traces()).data
        [span] = (await provider.list_spans("t")).data
    assert (trace.root_span_id, trace.start_time, trace.end_time) == ("a", at(1), None)
    assert (summary.name, summary.status, summary.spans) == ("(not started)", None, 1)
    assert (span.name, span.start_time, span.end_time, span.status) == ("(not started)", at(1), None, None)


async def test_a_root_that_never_started(tmp_path: Path) -> None:
    async with provider_in(tmp_path) as provider:
        await logged(provider, line("root", 0), start("b", 2, "root"), start("a", 1, "root"), end("root", 5))
        trace = await provider.get_trace("t")
        spans = (await provider.list_spans("t")).data
    # The earliest that did start stands for it.
    assert (trace.root_span_id, trace.start_time, trace.end_time) == ("a", at(0), at(5))
    assert [span.span_id for span in spans] == ["root", "a", "b"]


async def test_only_the_first_start_and_the_first_end_count(tmp_path: Path) -> None:
    async with provider_in(tmp_path) as provider:
        await logged(provider, start("a", 1), end("a", 2), start("a", 0, x=1), end("a", 9, SpanStatus.error))
        [summary] = (await provider.list_traces()).data
        [span] = (await provider.list_spans("t")).data
    assert (span.start_time, span.end_time, span.status, span.attributes) == (at(1), at(2), "ok", {})
    assert (summary.start_time, summary.end_time, summary.errors) == (at(1), at(2), 0)


async def test_a_trace_whose_root_has_no_status_has_none(tmp_path: Path) -> None:
    async with provider_in(tmp_path) as provider:
        for number, statuses in enumerate((("ok", "ok"), ("unset", "unset"), ("ok", "unset"), ("error", "unset"))):
            spans = request_of(number, at_s=number)
            for each, status in zip(spans, statuses, strict=True):
                each.status = status  # type: ignore[assignment]
            await provider.export_spans(spans)
        await logged(provider, start("a", -1))  # has not ended
        found = [trace.status for trace in (await provider.list_traces()).data]
        fine = [trace.trace_id async for trace in all_listed(provider.list_traces, status=SpanStatus.ok)]
    assert found == [SpanStatus.error, None, None, SpanStatus.ok, None]
    assert fine == [request_of(0)[0].trace_id]


async def test_tokens_of_a_client_are_counted_once(tmp_path: Path) -> None:
    tokens = {"gen_ai.usage.input_tokens": 7, "llamastack.cost": 0.5, "llamastack.cost.currency": "EUR"}
    odd = {"gen_ai.usage.input_tokens": "many", "gen_ai.usage.output_tokens": -1, "llamastack.cost": float("inf")}
    async with provider_in(tmp_path) as provider:
        await logged(provider, start("a", 1, **tokens), end("a", 2, **tokens), start("b", 1, "a", **odd))
        [summary] = (await provider.list_traces()).data
    assert (summary.input_tokens, summary.output_tokens) == (7, None)
    assert (summary.cost, summary.cost_currency) == (0.5, "EUR")


async def test_filters_and_pages_of_traces(tmp_path: Path) -> None:
    async with provider_in(tmp_path) as provider:
        for number in range(12):
            call, request = request_of(number, at_s=number)
            call.status = "error" if number % 3 == 0 else "ok"
            request.name = f"POST /{number % 2}"
            await provider.export_spans([call, request])

        async def numbers(**arguments: Any) -> list[int]:
            found = [trace async for trace in all_listed(provider.list_traces, **arguments)]
            return [int(trace.trace_id, 16) - 1 for trace in found]

        assert await numbers(limit=5) == list(range(11, -1, -1))
        assert await numbers(since=at(8)) == [11, 10, 9, 8]
        assert await numbers(status=SpanStatus.error, limit=1) == [9, 6, 3, 0]
        assert await numbers(status=SpanStatus.ok, name="/1", limit=2) == [11, 7, 5, 1]
        assert await numbers(name="post") == []
        page = await provider.list_traces(limit=12)
        assert not page.has_more


async def test_pages_of_spans(tmp_path: Path) -> None:
    async with provider_in(tmp_path) as provider:
        for number in (3, 1, 4, 0, 2):
            await logged(provider, start(f"s{number}", number // 2))
        first = await provider.list_spans("t", limit=2)
        await logged(provider, start("earlier", -1), start("later", 9))
        found = first.data + [
            span async for span in all_listed(provider.list_spans, trace_id="t", limit=2, after=first.last_id)
        ]
        assert [span.span_id for span in found] == ["s0", "s1", "s2", "s3", "s4", "later"]


@pytest.mark.parametrize(
    "after",
    ["", "x", "!!!!", "bm8", "MTox\n", "IDE6MQ", "MV8wOjE", "OTk5OTk5OTk5OTk5OTk5OTk5OTk6MQ", "é" * 5, "A" * 9999],
)
async def test_a_wrong_cursor_is_refused(tmp_path: Path, after: str) -> None:
    async with provider_in(tmp_path) as provider:
        await logged(provider, start("a", 1))
        for call in (provider.list_traces(after=after), provider.list_spans("t", after=after)):
            with pytest.raises(InvalidRequestError, match="is no 'last_id' of a page of this list") as raised:
                await call
            assert raised.value.param == "after"
            assert len(raised.value.message) < 200


async def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    async with provider_in(tmp_path) as provider:
        for call in (provider.get_trace("no\x1bne"), provider.list_spans("no\x1bne")):
            with pytest.raises(NotFoundError, match=r"no trace 'no\\x1bne' is known"):
                await call


@pytest.mark.parametrize(
    ("event", "fault"),
    [
        (line("a", 0, "x" * 2000), r"has \d+ bytes as JSON, and at most 1024 are kept"),
        (line("a", 0, x="x" * 2000), r"has \d+ bytes as JSON, and at most 1024 are kept"),
        (line("a", 0, "\ud800"), "cannot be kept as JSON"),
        (line("", 0), "span_id: has 0 characters"),
        (line("a" * 300, 0), "span_id: has 300 characters; an id has 1 to 256"),
        (line("a", -(10**10)), "is not between 1970 and 2262"),
        (line("a", 10**10), "is not between 1970 and 2262"),
    ],
)
async def test_an_event_that_cannot_be_kept_is_refused(tmp_path: Path, event: Event, fault: str) -> None:
    async with provider_in(tmp_path, max_event_bytes=1024) as provider:
        with pytest.raises(InvalidRequestError, match=fault):
            await provider.log_event(event)
        assert (await provider.list_traces()).data == []


async def test_a_span_that_is_full_is_refused_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results: list[str] = []

    async def one(provider: MetaReferenceTelemetry, span_id: str) -> None:
        try:
            await provider.log_event(line(span_id, 0))
        except InvalidRequestError as error:
            results.append(error.message)
        else:
            results.append("kept")

    async with provider_in(tmp_path) as provider:
        async with anyio.create_task_group() as tasks:
            for _ in range(1001):
                tasks.start_soon(one, provider, "a")
        assert sorted(results) == ["kept"] * 1000 + [
            "span 'a' has 1000 events, which is the most that is kept of a span"
        ]
        await one(provider, "b")
        assert results[-1] == "kept"


async def test_events_that_come_at_once_are_one_transaction(tmp_path: Path) -> None:
    async with provider_in(tmp_path) as provider:
        statements: list[str] = []
        writer = provider._readable._writer
        assert writer is not None
        await writer.run(lambda store: store.connection.set_trace_callback(statements.append))
        async with anyio.create_task_group() as tasks:
            for number in range(300):
                tasks.start_soon(provider.log_event, start(f"{number}", number))
        await writer.run(lambda store: store.connection.set_trace_callback(None))
        assert statements.count("COMMIT") <= 3
        assert (await provider.list_traces()).data[0].spans == 300


async def test_a_caller_that_is_cancelled_takes_nothing_from_others(tmp_path: Path) -> None:
    async with provider_in(tmp_path) as provider:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(provider.log_event, start("first", 0))
                await anyio.lowlevel.checkpoint()
                scope.cancel()
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(provider.log_event, start(f"{number}", number))
        assert {f"{number}" for number in range(20)} <= {span.span_id for span in (await provider.list_spans("t")).data}


async def test_a_locked_file_is_an_error_that_may_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_sink, "_BUSY_TIMEOUT_S", 0.01)
    async with provider_in(tmp_path) as provider:
        other = sqlite3.connect(tmp_path / "traces.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for call in (provider.log_event(start("a", 0)), provider.export_spans(request_of(0))):
            with pytest.raises(ProviderUnavailableError, match="another process keeps it locked") as raised:
                await call
            assert raised.value.is_transient
            assert provider.note == f"writes no traces: {raised.value.message}"
        assert (await provider.list_traces()).data == []  # reading goes on
        other.execute("ROLLBACK")
        other.close()
        assert provider.note is not None
        await provider.log_event(start("a", 0))
        assert provider.note is None
        await provider.export_spans(request_of(0))
        assert len((await provider.list_traces()).data) == 2


async def test_a_full_disk_is_over_when_there_is_room(tmp_path: Path) -> None:
    async with provider_in(tmp_path) as provider:
        writer = provider._readable._writer
        assert writer is not None
        await writer.run(lambda store: store.connection.execute("PRAGMA max_page_count = 20"))
        spans = [span for number in range(200) for span in request_of(number)]
        with pytest.raises(ProviderUnavailableError, match="the disk is full"):
            await provider.export_spans(spans)
        assert "the disk is full" in (provider.note or "")
        await writer.run(lambda store: store.connection.execute("PRAGMA max_page_count = 100000"))
        await provider.export_spans(spans)
        assert provider.note is None
        assert len((await provider.list_traces(limit=1000)).data) == 200


async def test_a_large_file_is_tidied_up_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_sink, "_PAUSE_S", 0.01)
    async with provider_in(tmp_path, max_bytes=1024 * 1024) as provider:
        with anyio.fail_after(30):  # the first look is over: the next would be in a minute
            while await provider._readable.read(_tidied_at) is None:
                await anyio.sleep(0.01)
        for first in range(0, 5000, 500):
            await provider.export_spans([span for number in range(first, first + 500) for span in request_of(number)])
        with anyio.fail_after(60):
            while await provider._readable.read(lambda store: store.trace(f"{1:032x}")) is not None:
                await anyio.sleep(0.02)


def _tidied_at(store: TraceStore) -> float | None:
    at, busy_until = store.connection.execute("SELECT tidy_at, tidying_until FROM upkeep").fetchone()
    return at if at and not busy_until else None


async def test_a_file_that_cannot_be_used_is_said_at_start(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"not a database" * 100)
    entry = {"provider_id": "traces", "provider_type": "meta-reference", "config": {"path": str(tmp_path / "x")}}
    async with Stack.from_config({"providers": {"telemetry": [entry]}}, folder=tmp_path / "stack") as stack:
        [instance] = stack.instances["telemetry"]
        assert "x cannot be used: file is not a database (the file is damaged" in str(instance.reason)


async def test_traces_are_read_from_the_first_provider_that_keeps_them(tmp_path: Path) -> None:
    def started(*sinks: str) -> Stack:
        entries = [
            {"provider_id": f"t{place}", "provider_type": "meta-reference", "config": {"sinks": [sink]}}
            for place, sink in enumerate(sinks)
        ]
        return Stack.from_config({"providers": {"telemetry": entries}}, folder=tmp_path)

    async with started("console-json", "sqlite") as stack:
        await stack.telemetry.log_event(event=start("a", 1))
        assert [trace.trace_id for trace in (await stack.telemetry.list_traces()).data] == ["t"]
        with pytest.raises(NotFoundError, match="no trace 'none' is known"):
            await stack.telemetry.get_trace(trace_id="none")
    async with started("console-json", "console") as stack:
        with pytest.raises(NotSupportedError, match="traces cannot be read from console-json: name 'sqlite'"):
            await stack.telemetry.list_traces()


async def test_what_is_kept_survives_a_restart(tmp_path: Path) -> None:
    async with provider_in(tmp_path) as provider:
        await provider.export_spans(request_of(0))
    async with provider_in(tmp_path) as provider:
        [trace] = (await provider.list_traces()).data
    assert trace.start_time == datetime.fromtimestamp(BEGAN_NS / 1e9, UTC)
