"""Spans and events reach collectors over HTTP and gRPC."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import grpc
import pytest
from backends.certificates import self_signed
from backends.otlp_receivers import Received, attributes_of, fake_collector, free_port, grpc_collector, otel_tap
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry_provider import started
from spans_for_tests import BEGAN_NS, TRACE_ID, odd_span, request_spans

from llamastack.api.telemetry import (
    Event,
    LogSeverity,
    MetricEvent,
    SpanEndPayload,
    SpanStartPayload,
    SpanStatus,
    StructuredLogEvent,
    UnstructuredLogEvent,
)
from llamastack.provider.errors import ProviderUnavailableError

pytestmark = pytest.mark.anyio
BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


async def until(condition: Callable[[], object], within_s: float = 20) -> None:
    with anyio.fail_after(within_s):
        while not condition():
            await anyio.sleep(0.01)


def check_odd_span(span: Span) -> None:
    assert (span.trace_id.hex(), span.span_id.hex()) == (TRACE_ID, "00f067aa0ba902b7")
    assert span.parent_span_id.hex() == "00f067aa0ba902b6"
    assert (span.name, span.kind) == ("chat größer 🦙", Span.SPAN_KIND_PRODUCER)
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (BEGAN_NS, BEGAN_NS + 5)
    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "the backend is down")
    assert attributes_of(span.attributes) == odd_span().attributes
    assert [(each.name, attributes_of(each.attributes)) for each in span.events] == [
        ("retry", {"attempt": 2}),
        ("end", {}),
    ]


async def test_a_real_receiver_gets_spans_over_http() -> None:
    async with otel_tap() as (url, received), started(endpoint=url, compression="none") as provider:
        await provider.export_spans([odd_span()])
        await until(lambda: received.spans)
        check_odd_span(received.spans[0])
        assert provider.note is None


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_a_batch_of_no_spans_asks_the_collector(protocol: str) -> None:
    with fake_collector() as (http_url, fake), grpc_collector() as (port, collector):
        url, received = (
            (f"http://127.0.0.1:{port}", collector.received) if protocol == "grpc" else (http_url, fake.received)
        )
        async with started(endpoint=url, protocol=protocol) as provider:
            await provider.export_spans([])
            assert provider.note is None
        assert [request.resource_spans for _, _, request in received.requests] == [[]]
    async with started(endpoint=f"http://127.0.0.1:{free_port()}", protocol=protocol) as provider:
        with pytest.raises(ProviderUnavailableError, match="refused"):
            await provider.export_spans([])
        assert provider.note


@pytest.mark.parametrize("compression", ["gzip", "none"])
async def test_a_receiver_gets_spans_over_grpc(compression: str) -> None:
    with grpc_collector() as (port, collector):
        config = {"endpoint": f"http://127.0.0.1:{port}", "protocol": "grpc", "compression": compression}
        async with started(**config, headers={"X-Api-Key": "secret-key"}) as provider:
            await provider.export_spans([odd_span()])
    check_odd_span(collector.received.spans[0])
    [(_, headers, _)] = collector.received.requests
    assert headers["x-api-key"] == "secret-key"


async def test_grpc_over_tls_trusts_the_given_certificate(tmp_path: Path) -> None:
    _, file = self_signed(tmp_path)
    credentials = grpc.ssl_server_credentials([(file.with_suffix(".key").read_bytes(), file.read_bytes())])
    with grpc_collector(credentials) as (port, collector):
        config = {"endpoint": f"https://127.0.0.1:{port}", "protocol": "grpc"}
        async with started(**config, ca_file=file) as provider:
            await provider.export_spans([odd_span()])
        assert len(collector.received.spans) == 1
        async with started(**config) as provider:
            with pytest.raises(Exception, match="UNAVAILABLE"):
                await provider.export_spans([odd_span()])


async def test_requests_have_the_headers_of_the_config() -> None:
    with fake_collector() as (url, collector):
        async with started(endpoint=f"{url}/v1/traces", headers={"Authorization": "Bearer abc"}) as provider:
            await provider.export_spans([odd_span()])
    check_odd_span(collector.received.spans[0])
    [(path, headers, _)] = collector.received.requests
    assert path == "/v1/traces"
    assert headers["authorization"] == "Bearer abc"
    assert headers["content-type"] == "application/x-protobuf"
    assert headers["content-encoding"] == "gzip"


async def test_a_trace_is_sampled_whole_or_not_at_all() -> None:
    with fake_collector() as (url, collector):
        async with started(endpoint=url, sampling_ratio=2**-55) as provider:
            await provider.export_spans(list(request_spans(1000)))  # ids from 1 on: those below 2 ** 9 are taken
    assert {int(span.trace_id.hex(), 16) for span in collector.received.spans} == set(range(1, 512))
    assert len(collector.received.spans) == 2 * 511


def events_of_a_span(trace_id: str, span_id: str, parent_id: str | None = None) -> tuple[Event, Event]:
    start = SpanStartPayload(name="whole", parent_span_id=parent_id)
    end = SpanEndPayload(status=SpanStatus.error)
    common = {"trace_id": trace_id, "span_id": span_id}
    return (
        StructuredLogEvent(**common, timestamp=BEGAN, payload=start, attributes={"a": {"b": [1, None]}}),
        StructuredLogEvent(**common, timestamp=BEGAN + timedelta(seconds=2), payload=end, attributes={"c": 1}),
    )


def check_events(received: Received) -> None:
    [log], [metric], [span] = received.logs, received.metrics, received.spans
    assert (log.body.string_value, log.severity_text, log.severity_number) == ("it is hot", "warn", 13)
    assert (log.trace_id.hex(), log.span_id.hex()) == (TRACE_ID, "00f067aa0ba902b7")
    assert log.time_unix_nano == BEGAN_NS
    assert attributes_of(log.attributes) == {"degrees": 90}
    [point] = metric.gauge.data_points
    assert (metric.name, metric.unit, point.as_double, point.time_unix_nano) == ("heat", "Cel", 90.5, BEGAN_NS)
    assert point.exemplars[0].trace_id.hex() == TRACE_ID
    assert (span.name, span.kind, span.status.code) == ("whole", Span.SPAN_KIND_INTERNAL, Status.STATUS_CODE_ERROR)
    assert span.end_time_unix_nano - span.start_time_unix_nano == 2_000_000_000
    assert attributes_of(span.attributes) == {"a": {"b": [1, None]}, "c": 1}


async def send_events_to(endpoint: str, received: Received, **config: object) -> None:
    ids = {"trace_id": TRACE_ID, "span_id": "00f067aa0ba902b7", "timestamp": BEGAN}
    begin, end = events_of_a_span(TRACE_ID, "00f067aa0ba902b7")
    async with started(endpoint=endpoint, **config) as provider:
        await provider.log_event(end)  # in any order
        line = UnstructuredLogEvent(**ids, message="it is hot", severity=LogSeverity.warn, attributes={"degrees": 90})
        await provider.log_event(line)
        await provider.log_event(MetricEvent(**ids, metric="heat", value=90.5, unit="Cel"))
        await provider.log_event(begin)
    await until(lambda: received.logs and received.metrics and received.spans)
    check_events(received)


async def test_a_real_receiver_gets_events_over_http() -> None:
    async with otel_tap() as (url, received):
        await send_events_to(url, received, compression="none")


async def test_a_receiver_gets_events_over_grpc() -> None:
    with grpc_collector() as (port, collector):
        await send_events_to(f"127.0.0.1:{port}", collector.received, protocol="grpc", insecure=True)


async def test_ids_of_another_form_keep_the_tree() -> None:
    with fake_collector() as (url, collector):
        async with started(endpoint=url) as provider:
            for event in (*events_of_a_span("my-trace", "root"), *events_of_a_span("my-trace", "child", "root")):
                await provider.log_event(event)
    root, child = collector.received.spans
    assert child.parent_span_id == root.span_id != child.span_id
    assert child.trace_id == root.trace_id
    assert (len(root.trace_id), len(root.span_id)) == (16, 8)
    attributes = attributes_of(child.attributes)
    assert attributes["llamastack.trace_id"] == "my-trace"
    assert (attributes["llamastack.span_id"], attributes["llamastack.parent_span_id"]) == ("child", "root")
