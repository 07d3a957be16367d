"""Events of `log_event` wait in bounded memory, and lost ones are counted and in the log."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import anyio
import pytest
from backends.otlp_receivers import Answer, attributes_of, fake_collector
from opentelemetry_provider import started

from llamastack.api.telemetry import (
    LogSeverity,
    MetricEvent,
    SpanEndPayload,
    SpanStartPayload,
    SpanStatus,
    StructuredLogEvent,
    UnstructuredLogEvent,
)
from llamastack.provider.errors import InvalidRequestError
from llamastack_provider_opentelemetry.event_queue import EventQueue
from llamastack_provider_opentelemetry.open_spans import OpenSpans

if TYPE_CHECKING:
    from llamastack_provider_opentelemetry.event_encoding import EventEncoder

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


def line(message: str = "hello", **more: object) -> UnstructuredLogEvent:
    return UnstructuredLogEvent.model_validate(
        {"trace_id": TRACE_ID, "span_id": "a", "timestamp": BEGAN, "message": message, "severity": "info", **more}
    )


def start_of(span_id: str, name: str = "whole") -> StructuredLogEvent:
    payload = SpanStartPayload(name=name)
    return StructuredLogEvent(trace_id=TRACE_ID, span_id=span_id, timestamp=BEGAN, payload=payload)


def end_of(span_id: str) -> StructuredLogEvent:
    payload = SpanEndPayload(status=SpanStatus.ok)
    return StructuredLogEvent(trace_id=TRACE_ID, span_id=span_id, timestamp=BEGAN, payload=payload)


async def until(condition: Callable[[], object], within_s: float = 20) -> None:
    with anyio.fail_after(within_s):
        while not condition():
            await anyio.sleep(0.01)


@pytest.mark.anyio
async def test_a_slow_collector_slows_no_event_and_memory_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    with fake_collector(Answer(hangs=True)) as (url, collector):
        async with started(endpoint=url, max_waiting_events=100, timeout_s=0.2) as provider:
            with anyio.fail_after(10):
                for _ in range(5000):
                    await provider.log_event(line())
                await until(lambda: collector.seen)
                for _ in range(5000):
                    await provider.log_event(line())
            collector.otherwise = Answer()
            await until(lambda: collector.received.logs)
        assert len(collector.received.logs) == 100
    assert "dropped 9900 events since the start" in caplog.text


@pytest.mark.anyio
async def test_large_events_wait_up_to_a_limit_of_bytes(caplog: pytest.LogCaptureFixture) -> None:
    with fake_collector(Answer(503)) as (url, collector):
        async with started(endpoint=url, max_waiting_bytes=65_536, max_request_bytes=65_536) as provider:
            for _ in range(20):
                await provider.log_event(line("x" * 30_000))
            await until(lambda: collector.seen)
            collector.otherwise = Answer()
            await until(lambda: collector.received.logs)
        kept = len(collector.received.logs)
        assert 1 <= kept <= 2
        assert f"dropped {20 - kept} events" in caplog.text


@pytest.mark.anyio
async def test_a_large_event_is_refused() -> None:
    with fake_collector() as (url, collector):
        async with started(endpoint=url) as provider:
            for event in (line("x" * 32_768), line(attributes={"a": ["y" * 20_000, "y" * 20_000, "\ud83e"]})):
                with pytest.raises(
                    InvalidRequestError, match=r"at most 32768 are taken .* 'max_event_bytes'"
                ) as caught:
                    await provider.log_event(event)
                assert caught.value.param == "event"
            await provider.log_event(line("x" * 32_000))
        assert [len(log.body.string_value) for log in collector.received.logs] == [32_000]


@pytest.mark.anyio
async def test_events_are_counted_by_bytes_before_they_wait() -> None:
    queue = EventQueue("otel", cast("EventEncoder", None), anyio.sleep, most_events=10, most_bytes=1000)  # type: ignore[arg-type]
    for _ in range(5):
        queue.put(line(), 400)
    queue.put(line(), 200)
    assert (queue.waiting, queue.dropped) == (3, 3)


@pytest.mark.anyio
async def test_room_for_events_is_free_again_when_they_are_sent() -> None:
    with fake_collector() as (url, collector):
        async with started(endpoint=url, max_waiting_bytes=65_536, max_request_bytes=65_536) as provider:
            for sent in range(1, 4):
                await provider.log_event(line("x" * 30_000))
                await provider.log_event(line("x" * 30_000))
                await until(lambda sent=sent: len(collector.received.logs) == 2 * sent)  # type: ignore[misc]


@pytest.mark.anyio
async def test_events_arrive_when_the_collector_is_back_and_refused_ones_are_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with fake_collector() as (url, collector):
        collector.answers.extend([Answer(503), Answer(), Answer(400)])
        async with started(endpoint=url) as provider:
            await provider.log_event(line("kept"))
            await until(lambda: collector.received.logs)
            await provider.log_event(line("refused"))
            await until(lambda: collector.seen == 3)
            await provider.log_event(line("kept, too"))
        assert [log.body.string_value for log in collector.received.logs] == ["kept", "kept, too"]
    assert "sends no events" in caplog.text
    assert "sends events again" in caplog.text
    assert "1 events of 'otel' are refused, and lost" in caplog.text


@pytest.mark.anyio
async def test_odd_events_lose_nothing() -> None:
    deep: object = "end"
    for _ in range(100):
        deep = [deep]
    with fake_collector() as (url, collector):
        async with started(endpoint=url) as provider:
            await provider.log_event(line("half \ud83e", attributes={"big": 2**64, "deep": deep, "none": None}))
            await provider.log_event(line())
            ids = {"trace_id": "t", "span_id": "s", "timestamp": datetime(1900, 1, 1, tzinfo=UTC)}
            for value in (7, 2**63, 10**400):
                await provider.log_event(MetricEvent(**ids, metric="m", value=value, unit="1"))
        first, second = collector.received.logs
        assert first.body.string_value == "half ?"
        attributes = attributes_of(first.attributes)
        assert attributes["big"] == str(2**64)
        assert attributes["none"] is None
        assert second.body.string_value == "hello"
        points = [metric.gauge.data_points[0] for metric in collector.received.metrics]
        assert [getattr(point, str(point.WhichOneof("value"))) for point in points] == [7, 2.0**63, float("inf")]
        assert points[0].time_unix_nano == 0


# ---- spans that have not ended ---------------------------------------------------------------------------------------


def test_a_span_that_does_not_end_in_time_is_dropped_and_counted() -> None:
    now = [0.0]
    spans = OpenSpans(10, 10**6, lambda: now[0])
    assert spans.take(start_of("early")) is None
    now[0] = 5
    assert spans.take(start_of("late")) is None
    now[0] = 10
    spans.drop_late()
    assert (len(spans), spans.dropped) == (1, 1)
    assert spans.take(end_of("early")) is None, "its beginning is gone"
    made = spans.take(end_of("late"))
    assert made is not None
    assert made.name == "whole"


def test_of_two_beginnings_the_first_counts() -> None:
    spans = OpenSpans(10, 10**6)
    spans.take(start_of("a", "first"))
    spans.take(start_of("a", "second"))
    made = spans.take(end_of("a"))
    assert made is not None
    assert made.name == "first"
    assert (len(spans), spans.dropped) == (0, 0)


def test_spans_that_have_not_ended_take_bounded_memory() -> None:
    spans = OpenSpans(10, 100_000)
    for number in range(1000):
        spans.take(start_of(str(number), "x" * 1000))
    assert 50 < len(spans) < 100
    assert len(spans) + spans.dropped == 1000
    assert spans.take(end_of("999")) is not None, "the newest are kept"


def test_severities_have_a_number_each() -> None:
    assert {each.value for each in LogSeverity} == {"verbose", "debug", "info", "warn", "error", "critical"}
