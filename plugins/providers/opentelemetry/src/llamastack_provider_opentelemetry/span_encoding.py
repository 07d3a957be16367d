"""Spans as OTLP messages."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status

from llamastack_provider_opentelemetry.values import id_bytes, key_values, sendable
from llamastack_telemetry import FinishedSpan, conventions

_KINDS = {
    "internal": Span.SPAN_KIND_INTERNAL,
    "server": Span.SPAN_KIND_SERVER,
    "client": Span.SPAN_KIND_CLIENT,
    "producer": Span.SPAN_KIND_PRODUCER,
    "consumer": Span.SPAN_KIND_CONSUMER,
}
_STATUSES = {"unset": Status.STATUS_CODE_UNSET, "ok": Status.STATUS_CODE_OK, "error": Status.STATUS_CODE_ERROR}
_SAMPLED = 1  # the flag of W3C Trace Context: only sampled spans come here


class Sampling:
    """Which traces are sent, by their ids: the rule of TraceIdRatioBased in OpenTelemetry's SDK for Python.

    Source: `opentelemetry.sdk.trace.sampling`. The lower 64 bits of the id are compared with the ratio.
    """

    def __init__(self, ratio: float) -> None:
        self._bound = round(ratio * (1 << 64))
        self.takes_all = ratio == 1

    def takes(self, trace_id: str) -> bool:
        """Whether the spans of a trace are sent.

        trace_id: 32 hexadecimal digits, or another text, which is hashed as it is where it is sent.
        """
        return int.from_bytes(id_bytes(trace_id, 16)[8:]) < self._bound


class SpanEncoder:
    """Makes requests of spans. It keeps nothing, so that any thread can use it."""

    def __init__(self, resource: Resource, scope: InstrumentationScope) -> None:
        self._resource, self._scope = resource, scope

    def __call__(self, spans: Sequence[FinishedSpan]) -> bytes:
        """The serialized request of some spans."""
        request = ExportTraceServiceRequest()
        one = request.resource_spans.add(resource=self._resource, schema_url=conventions.SCHEMA_URL)
        group = one.scope_spans.add(scope=self._scope, schema_url=conventions.SCHEMA_URL)
        for span in spans:
            try:
                _add(group, span)
            except ValueError:  # protobuf refuses a text or a number
                _add(group, _sendable(span))
        return bytes(request.SerializeToString())


def _add(group: ScopeSpans, span: FinishedSpan) -> None:
    group.spans.add(
        trace_id=id_bytes(span.trace_id, 16),
        span_id=id_bytes(span.span_id, 8),
        parent_span_id=id_bytes(span.parent_id, 8) if span.parent_id else b"",
        name=span.name,
        kind=_KINDS[span.kind],
        flags=_SAMPLED,
        start_time_unix_nano=max(0, span.start_ns),
        end_time_unix_nano=max(0, span.end_ns),
        status={"code": _STATUSES[span.status], "message": span.message},
        attributes=key_values(span.attributes),
        events=[
            {"name": each.name, "time_unix_nano": max(0, each.time_ns), "attributes": key_values(each.attributes)}
            for each in span.events
        ],
    )


def _sendable(span: FinishedSpan) -> FinishedSpan:
    """The same span with texts that can be sent."""
    return FinishedSpan(
        span.trace_id,
        span.span_id,
        span.parent_id,
        sendable(span.name),
        span.kind,
        span.start_ns,
        span.end_ns,
        span.status,
        sendable(span.message),
        sendable(span.attributes),
        [type(each)(sendable(each.name), each.time_ns, sendable(each.attributes)) for each in span.events],
    )
