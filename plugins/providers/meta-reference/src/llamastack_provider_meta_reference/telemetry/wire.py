"""What is kept, as the telemetry API has it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from llamastack.api.telemetry import Span, SpanEvent, SpanKind, SpanStatus, Trace, TraceSummary
from llamastack_provider_meta_reference.telemetry.parts import NOT_STARTED, KeptSpan, KeptTrace
from llamastack_provider_meta_reference.telemetry.trace_store import KeptEvent

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def trace_to_wire(trace: KeptTrace) -> Trace:
    """A trace by itself."""
    return Trace(
        trace_id=trace.trace_id,
        root_span_id=trace.root.span_id,
        start_time=_moment(trace.start_ns),
        end_time=None if trace.end_ns is None else _moment(trace.end_ns),
    )


def summary_of(trace: KeptTrace) -> TraceSummary:
    """A trace in a list."""
    cost, currency = trace.cost or (None, "")
    return TraceSummary(
        **trace_to_wire(trace).model_dump(),
        name=NOT_STARTED if trace.name is None else trace.name,
        status=SpanStatus.error if trace.errors else _status(trace.root_status),
        spans=trace.spans,
        errors=trace.errors,
        input_tokens=trace.input_tokens,
        output_tokens=trace.output_tokens,
        cost=cost,
        cost_currency=currency or None,
    )


def span_to_wire(trace_id: str, span: KeptSpan, events: Sequence[KeptEvent]) -> Span:
    """A span with its events."""
    return Span(
        trace_id=trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_id,
        name=NOT_STARTED if span.name is None else span.name,
        kind=SpanKind(span.kind),
        start_time=_moment(span.start_ns),
        end_time=None if span.end_ns is None else _moment(span.end_ns),
        status=_status(span.status),
        status_message=span.message,
        attributes=span.attributes,
        events=[
            SpanEvent(name=event.name, timestamp=_moment(event.time_ns), attributes=event.attributes)
            for event in events
        ],
    )


def _status(kept: str) -> SpanStatus | None:
    return None if kept == "unset" else SpanStatus(kept)


def _moment(ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=ns // 1000)
