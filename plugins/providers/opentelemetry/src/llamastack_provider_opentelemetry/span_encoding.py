"""Spans as OTLP messages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from llamastack_provider_opentelemetry.values import id_bytes, key_values, sendable
from llamastack_provider_opentelemetry.wire_format import embedded, tag_of
from llamastack_telemetry import FinishedSpan, conventions

_KINDS = {
    "internal": Span.SPAN_KIND_INTERNAL,
    "server": Span.SPAN_KIND_SERVER,
    "client": Span.SPAN_KIND_CLIENT,
    "producer": Span.SPAN_KIND_PRODUCER,
    "consumer": Span.SPAN_KIND_CONSUMER,
}
_STATUSES = {"unset": Status.STATUS_CODE_UNSET, "ok": Status.STATUS_CODE_OK, "error": Status.STATUS_CODE_ERROR}
# Their stubs do not know that they take mappings for messages.
_new_span: Any = Span
_new_pair: Any = KeyValue
_SAMPLED = 1  # the flag of W3C Trace Context: only sampled spans come here
_RESOURCE_SPANS = tag_of(ExportTraceServiceRequest, "resource_spans")
_SCOPE_SPANS = tag_of(ResourceSpans, "scope_spans")
_SPANS = tag_of(ScopeSpans, "spans")
_ATTRIBUTES = tag_of(Span, "attributes")
_LONGEST_REMEMBERED = 64  # characters of a text
_NEVER_THE_SAME = frozenset([conventions.REQUEST_ID])


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
        schema = conventions.SCHEMA_URL
        self._resource_part: bytes = ResourceSpans(resource=resource, schema_url=schema).SerializeToString()
        self._scope_part: bytes = ScopeSpans(scope=scope, schema_url=schema).SerializeToString()

    def __call__(self, spans: Sequence[FinishedSpan]) -> bytes:
        """The serialized request of some spans."""
        parts = [self._scope_part]
        for span in spans:
            try:
                parts.append(embedded(_SPANS, _encoded(span)))
            except ValueError:  # protobuf refuses a text or a number
                parts.append(embedded(_SPANS, _encoded(_sendable(span))))
        return embedded(_RESOURCE_SPANS, self._resource_part + embedded(_SCOPE_SPANS, b"".join(parts)))


# perf: llamastack-v1-otlp. Most attributes of a span have values that earlier spans had, so these parts are remembered:
# it halves the time. Serialized messages that are joined are one message with the fields of all.
def _encoded(span: FinishedSpan) -> bytes:
    parts: list[bytes] = []
    other: dict[str, object] = {}
    for name, value in span.attributes.items():
        if name in _NEVER_THE_SAME:
            other[name] = value
        elif (isinstance(value, str) and len(value) <= _LONGEST_REMEMBERED) or isinstance(value, int):
            parts.append(_attribute(name, value))
        else:
            other[name] = value
    head = _new_span(
        trace_id=id_bytes(span.trace_id, 16),
        span_id=id_bytes(span.span_id, 8),
        parent_span_id=id_bytes(span.parent_id, 8) if span.parent_id else None,
        name=span.name,
        kind=_KINDS[span.kind],
        flags=_SAMPLED,
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.end_ns,
        status={"code": _STATUSES[span.status], "message": span.message},
        attributes=key_values(other),
        events=[
            {"name": each.name, "time_unix_nano": each.time_ns, "attributes": key_values(each.attributes)}
            for each in span.events
        ]
        if span.events
        else None,
    )
    parts.append(head.SerializeToString())
    return b"".join(parts)


@lru_cache(2048, typed=True)
def _attribute(name: str, value: object) -> bytes:
    """The part of a span for one attribute."""
    [pair] = key_values({name: value})
    return embedded(_ATTRIBUTES, _new_pair(**pair).SerializeToString())


def _sendable(span: FinishedSpan) -> FinishedSpan:
    """The same span without what protobuf refuses."""
    return FinishedSpan(
        span.trace_id,
        span.span_id,
        span.parent_id,
        sendable(span.name),
        span.kind,
        max(0, span.start_ns),
        max(0, span.end_ns),
        span.status,
        sendable(span.message),
        sendable(span.attributes),
        [type(each)(sendable(each.name), max(0, each.time_ns), sendable(each.attributes)) for each in span.events],
    )
