"""Spans of `log_event`, whose beginning and end come as two events, in any order."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from llamastack.api.telemetry import SpanEndPayload, SpanStartPayload, StructuredLogEvent
from llamastack_provider_opentelemetry.values import foreign_ids, id_bytes, joined
from llamastack_telemetry import FinishedSpan

_MOST_SPANS = 10_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Waiting(NamedTuple):
    event: StructuredLogEvent
    since: float
    size: int


class OpenSpans:
    """The events whose other half has not come. One thread at a time may use it.

    timeout_s: how long an event waits for the other one. most_bytes: of all that wait, as JSON.
    clock: seconds, from any moment.
    """

    def __init__(self, timeout_s: float, most_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.dropped = 0
        """How many events were dropped, because the other half did not come in time or too many waited."""
        self._timeout_s, self._most_bytes, self._clock = timeout_s, most_bytes, clock
        self._waiting: OrderedDict[tuple[str, str], _Waiting] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, event: StructuredLogEvent) -> FinishedSpan | None:
        """The span, if this event is the second of the two. If a span starts or ends twice, the first counts."""
        key = (event.trace_id, event.span_id)
        other = self._waiting.get(key)
        if other is not None:
            if type(other.event.payload) is type(event.payload):
                return None
            del self._waiting[key]
            self._bytes -= other.size
            return _span(other.event, event)
        size = len(event.model_dump_json())
        self._waiting[key] = _Waiting(event, self._clock(), size)
        self._bytes += size
        while len(self._waiting) > _MOST_SPANS or self._bytes > self._most_bytes:
            self._drop_oldest()
        return None

    def drop_late(self) -> None:
        """Drop the events that have waited too long."""
        latest = self._clock() - self._timeout_s
        while self._waiting and next(iter(self._waiting.values())).since <= latest:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, oldest = self._waiting.popitem(last=False)
        self._bytes -= oldest.size
        self.dropped += 1


def _span(one: StructuredLogEvent, other: StructuredLogEvent) -> FinishedSpan:
    begin, end = (one, other) if isinstance(one.payload, SpanStartPayload) else (other, one)
    assert isinstance(begin.payload, SpanStartPayload) and isinstance(end.payload, SpanEndPayload)  # noqa: PT018
    parent = begin.payload.parent_span_id
    ids = [
        ("llamastack.trace_id", begin.trace_id, id_bytes(begin.trace_id, 16)),
        ("llamastack.span_id", begin.span_id, id_bytes(begin.span_id, 8)),
    ]
    if parent:
        ids.append(("llamastack.parent_span_id", parent, id_bytes(parent, 8)))
    return FinishedSpan(
        trace_id=begin.trace_id,
        span_id=begin.span_id,
        parent_id=parent,
        name=begin.payload.name,
        kind="internal",
        start_ns=nanoseconds(begin.timestamp),
        end_ns=nanoseconds(end.timestamp),
        status="error" if end.payload.status == "error" else "ok",
        # JSON as it came; the encoder takes any.
        own_attributes=joined(foreign_ids(ids), begin.attributes, end.attributes),  # type: ignore[arg-type]
    )


def nanoseconds(moment: datetime) -> int:
    """Nanoseconds since 1970, exactly; 0 for an earlier moment."""
    return max(0, (moment - _EPOCH) // timedelta(microseconds=1) * 1000)
