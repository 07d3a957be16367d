"""Spans as OTLP messages."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from llamastack_provider_opentelemetry.values import id_bytes, key_values, sendable
from llamastack_provider_opentelemetry.wire_format import embedded, tag_of
from llamastack_telemetry import Attributes, FinishedSpan, conventions

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
_KEY, _VALUE = tag_of(KeyValue, "key"), tag_of(KeyValue, "value")
_STRING_VALUE = tag_of(AnyValue, "string_value")
_IDS = tag_of(Span, "trace_id") + b"\x10%b" + tag_of(Span, "span_id") + b"\x08%b"
_PARENT = tag_of(Span, "parent_span_id") + b"\x08%b"
_TIMES = struct.Struct("<sQsQ")
_START, _END = tag_of(Span, "start_time_unix_nano"), tag_of(Span, "end_time_unix_nano")
_MOST_KINDS = 1000
_LATEST_NS = 2**64 - 1
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
    """Makes requests of spans. Any thread can use it."""

    def __init__(self, resource: Resource, scope: InstrumentationScope) -> None:
        schema = conventions.SCHEMA_URL
        self._resource_part: bytes = ResourceSpans(resource=resource, schema_url=schema).SerializeToString()
        self._scope_part: bytes = ScopeSpans(scope=scope, schema_url=schema).SerializeToString()
        # By the identity of the attributes that spans of a kind share, which are kept: no others get the same.
        self._kinds: dict[tuple[int, str, str, str], tuple[Attributes, bytes]] = {}

    def __call__(self, spans: Sequence[FinishedSpan]) -> bytes:
        """The serialized request of some spans."""
        parts = [self._scope_part]
        for span in spans:
            try:
                parts.append(embedded(_SPANS, self._encoded(span)))
            except (ValueError, struct.error):  # protobuf refuses a text or a number
                parts.append(embedded(_SPANS, self._encoded(_sendable(span))))
        return embedded(_RESOURCE_SPANS, self._resource_part + embedded(_SCOPE_SPANS, b"".join(parts)))

    # perf: llamastack-v1-otlp. Serialized messages that are joined are one message with the fields of all. So what all
    # spans of a kind have is serialized once, and what is left has few fields, all of a fixed form: to make a message
    # of each span takes four times as long.
    def _encoded(self, span: FinishedSpan) -> bytes:
        head = _IDS % (id_bytes(span.trace_id, 16), id_bytes(span.span_id, 8))
        if span.parent_id:
            head += _PARENT % id_bytes(span.parent_id, 8)
        parts = [head, _TIMES.pack(_START, span.start_ns, _END, span.end_ns), self._kind_of(span)]
        for name, value in span.own_attributes.items():
            if name in _NEVER_THE_SAME and isinstance(value, str):
                parts.append(_text_attribute(name, value))
            elif isinstance(value, int) or (isinstance(value, str) and len(value) <= _LONGEST_REMEMBERED):
                parts.append(_remembered_attribute(name, value))
            else:
                parts.append(_attribute(name, value))
        if span.events or span.message:
            parts.append(_rare_fields(span))
        return b"".join(parts)

    def _kind_of(self, span: FinishedSpan) -> bytes:
        """The fields that all spans of this kind have."""
        key = (id(span.shared_attributes), span.name, span.kind, span.status)
        known = self._kinds.get(key)
        if known is not None:
            return known[1]
        made: bytes = _new_span(
            name=span.name,
            kind=_KINDS[span.kind],
            flags=_SAMPLED,
            status={"code": _STATUSES[span.status]},
            attributes=key_values(span.shared_attributes),
        ).SerializeToString()
        if len(self._kinds) >= _MOST_KINDS:
            self._kinds.clear()
        self._kinds[key] = (span.shared_attributes, made)
        return made


def _rare_fields(span: FinishedSpan) -> bytes:
    made: bytes = _new_span(
        status={"code": _STATUSES[span.status], "message": span.message},
        events=[
            {"name": each.name, "time_unix_nano": each.time_ns, "attributes": key_values(each.attributes)}
            for each in span.events
        ],
    ).SerializeToString()
    return made


@lru_cache(2048, typed=True)
def _remembered_attribute(name: str, value: object) -> bytes:
    return _attribute(name, value)


def _attribute(name: str, value: object) -> bytes:
    """The part of a span for one attribute."""
    [pair] = key_values({name: value})
    return embedded(_ATTRIBUTES, _new_pair(**pair).SerializeToString())


def _text_attribute(name: str, value: str) -> bytes:
    """The same for a text. Raises ValueError where it is not Unicode."""
    text = embedded(_STRING_VALUE, value.encode())
    return embedded(_ATTRIBUTES, _key(name) + embedded(_VALUE, text))


@lru_cache(256)
def _key(name: str) -> bytes:
    return embedded(_KEY, name.encode())


def _sendable(span: FinishedSpan) -> FinishedSpan:
    """The same span without what protobuf refuses."""
    return FinishedSpan(
        span.trace_id,
        span.span_id,
        span.parent_id,
        sendable(span.name),
        span.kind,
        _in_range(span.start_ns),
        _in_range(span.end_ns),
        span.status,
        sendable(span.message),
        sendable(span.own_attributes),
        [type(each)(sendable(each.name), _in_range(each.time_ns), sendable(each.attributes)) for each in span.events],
        sendable(span.shared_attributes),
    )


def _in_range(time_ns: int) -> int:
    return min(max(0, time_ns), _LATEST_NS)
