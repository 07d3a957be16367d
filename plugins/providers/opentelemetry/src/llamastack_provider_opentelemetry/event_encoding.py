"""Events of `log_event` as OTLP messages: a line of a log is a log record, a metric a gauge, a span a span."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TypeVar

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import ScopeLogs, SeverityNumber
from opentelemetry.proto.metrics.v1.metrics_pb2 import ScopeMetrics
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from llamastack.api.telemetry import Event, LogSeverity, MetricEvent, UnstructuredLogEvent
from llamastack_provider_opentelemetry.open_spans import OpenSpans, nanoseconds
from llamastack_provider_opentelemetry.payloads import Payload, in_payloads
from llamastack_provider_opentelemetry.span_encoding import Sampling, SpanEncoder
from llamastack_provider_opentelemetry.values import INT64, foreign_ids, id_bytes, key_values, sendable
from llamastack_telemetry import FinishedSpan, conventions

_OWN = "llamastack."
_E = TypeVar("_E", UnstructuredLogEvent, MetricEvent)

# Source: https://opentelemetry.io/docs/specs/otel/logs/data-model/#field-severitynumber.
_SEVERITIES = {
    LogSeverity.verbose: SeverityNumber.SEVERITY_NUMBER_TRACE,
    LogSeverity.debug: SeverityNumber.SEVERITY_NUMBER_DEBUG,
    LogSeverity.info: SeverityNumber.SEVERITY_NUMBER_INFO,
    LogSeverity.warn: SeverityNumber.SEVERITY_NUMBER_WARN,
    LogSeverity.error: SeverityNumber.SEVERITY_NUMBER_ERROR,
    LogSeverity.critical: SeverityNumber.SEVERITY_NUMBER_FATAL,
}


class EventEncoder:
    """Makes requests of events. It remembers the spans that have not ended, so one thread at a time may use it.

    most_bytes: of a request.
    """

    def __init__(
        self,
        resource: Resource,
        scope: InstrumentationScope,
        *,
        spans: SpanEncoder,
        open_spans: OpenSpans,
        sampling: Sampling,
        most_bytes: int,
    ) -> None:
        self.open_spans = open_spans
        self._resource, self._scope = resource, scope
        self._spans, self._sampling, self._most_bytes = spans, sampling, most_bytes

    def __call__(self, events: Sequence[Event]) -> list[Payload]:
        """The requests for some events, at least one for each signal that they have."""
        lines: list[UnstructuredLogEvent] = []
        metrics: list[MetricEvent] = []
        spans: list[FinishedSpan] = []
        self.open_spans.drop_late()
        for event in events:
            if isinstance(event, UnstructuredLogEvent):
                lines.append(event)
            elif isinstance(event, MetricEvent):
                metrics.append(event)
            elif self._sampling.takes(event.trace_id) and (span := self.open_spans.take(event)) is not None:
                spans.append(span)
        return [
            *in_payloads("traces", spans, self._spans, self._most_bytes),
            *in_payloads("logs", lines, self._logs, self._most_bytes),
            *in_payloads("metrics", metrics, self._metrics, self._most_bytes),
        ]

    def _logs(self, events: Sequence[UnstructuredLogEvent]) -> bytes:
        request = ExportLogsServiceRequest()
        one = request.resource_logs.add(resource=self._resource, schema_url=conventions.SCHEMA_URL)
        group = one.scope_logs.add(scope=self._scope, schema_url=conventions.SCHEMA_URL)
        for event in events:
            try:
                _add_record(group, event)
            except ValueError:  # protobuf refuses a text or a number
                _add_record(group, _sendable(event))
        return bytes(request.SerializeToString())

    def _metrics(self, events: Sequence[MetricEvent]) -> bytes:
        request = ExportMetricsServiceRequest()
        one = request.resource_metrics.add(resource=self._resource, schema_url=conventions.SCHEMA_URL)
        group = one.scope_metrics.add(scope=self._scope, schema_url=conventions.SCHEMA_URL)
        for event in events:
            try:
                _add_metric(group, event)
            except ValueError:
                _add_metric(group, _sendable(event))
        return bytes(request.SerializeToString())


def _add_record(group: ScopeLogs, event: UnstructuredLogEvent) -> None:
    trace_id, span_id = id_bytes(event.trace_id, 16), id_bytes(event.span_id, 8)
    ids = foreign_ids([(f"{_OWN}trace_id", event.trace_id, trace_id), (f"{_OWN}span_id", event.span_id, span_id)])
    group.log_records.add(
        time_unix_nano=nanoseconds(event.timestamp),
        observed_time_unix_nano=time.time_ns(),
        severity_number=_SEVERITIES[event.severity],
        severity_text=event.severity.value,
        body={"string_value": event.message},
        trace_id=trace_id,
        span_id=span_id,
        attributes=key_values({**ids, **(event.attributes or {})}),
    )


def _add_metric(group: ScopeMetrics, event: MetricEvent) -> None:
    at_ns = nanoseconds(event.timestamp)
    is_whole = isinstance(event.value, int) and event.value in INT64
    number = {"as_int": event.value} if is_whole else {"as_double": _as_double(event.value)}
    exemplar = {
        **number,
        "time_unix_nano": at_ns,
        "trace_id": id_bytes(event.trace_id, 16),
        "span_id": id_bytes(event.span_id, 8),
    }
    point = {
        **number,
        "time_unix_nano": at_ns,
        "attributes": key_values(event.attributes or {}),
        "exemplars": [exemplar],
    }
    group.metrics.add(name=event.metric, unit=event.unit, gauge={"data_points": [point]})


def _as_double(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 1024 bits
        return float("inf") if value > 0 else float("-inf")


def _sendable(event: _E) -> _E:
    """The same event with texts that can be sent."""
    texts = {name: sendable(value) for name, value in vars(event).items() if isinstance(value, str | dict)}
    return event.model_copy(update={name: value for name, value in texts.items() if name not in ("type", "severity")})
