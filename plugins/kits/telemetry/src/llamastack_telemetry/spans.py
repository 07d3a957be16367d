"""A span as the pipeline hands it to sinks, and the protocol of a sink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, Protocol, runtime_checkable

from llamastack.api.telemetry import Span as WireSpan
from llamastack.api.telemetry import SpanEvent as WireSpanEvent
from llamastack.api.telemetry import SpanKind, SpanStatus

__all__ = ["AttributeValue", "Attributes", "FinishedSpan", "SpanSink", "TimedEvent", "moment"]

AttributeValue = str | int | float | bool | list[str]
"""What an attribute of a span may be."""
Attributes = dict[str, AttributeValue]
"""By name; see `llamastack_telemetry.conventions`."""


@dataclass(slots=True)
class TimedEvent:
    """Something that happened in a span.

    name: what happened. time_ns: when, in nanoseconds since 1970. attributes: more about it, by name.
    """

    name: str
    time_ns: int
    attributes: Attributes = field(default_factory=dict)


# perf: llamastack-v1-sqlite. Not frozen, because creating a frozen one takes three times as long.
@dataclass(slots=True)
class FinishedSpan:
    """A finished part of a trace. No sink changes it: every sink gets the same one.

    trace_id: 32 lower-case hexadecimal digits. span_id, parent_id: 16; parent_id is None at the root.
    name: what it is about, such as `chat llama-3.2-3b`.
    kind: where it stands between processes, as OpenTelemetry has it.
    start_ns, end_ns: nanoseconds since 1970.
    status: `ok`, `error`, or `unset` where neither is certain, such as for a call that was cancelled.
    message: why it failed; "" if it did not.
    own_attributes: those of this span. events: what happened in it, in order of time.
    shared_attributes: one object for all spans of a kind, so that a sink may encode it once. Nobody changes it.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: Literal["internal", "server", "client", "producer", "consumer"]
    start_ns: int
    end_ns: int
    status: Literal["ok", "error", "unset"] = "unset"
    message: str = ""
    own_attributes: Attributes = field(default_factory=dict)
    events: list[TimedEvent] = field(default_factory=list)
    shared_attributes: Attributes = field(default_factory=dict)

    @property
    def attributes(self) -> Mapping[str, AttributeValue]:
        """All attributes by name; see `llamastack_telemetry.conventions`."""
        return {**self.shared_attributes, **self.own_attributes}

    def to_wire(self) -> WireSpan:
        """The span as the telemetry API has it."""
        return WireSpan(
            trace_id=self.trace_id,
            span_id=self.span_id,
            parent_span_id=self.parent_id,
            name=self.name,
            kind=SpanKind(self.kind),
            start_time=moment(self.start_ns),
            end_time=moment(self.end_ns),
            status=None if self.status == "unset" else SpanStatus(self.status),
            status_message=self.message or None,
            attributes=dict(self.attributes),
            events=[
                WireSpanEvent(name=event.name, timestamp=moment(event.time_ns), attributes=dict(event.attributes))
                for event in self.events
            ],
        )


@runtime_checkable
class SpanSink(Protocol):
    """What a provider of the telemetry API implements beside it, to get spans in batches."""

    async def export_spans(self, spans: Sequence[FinishedSpan]) -> None:
        """Take some spans, of any traces, the earliest to finish first; they are not changed afterwards.

        The pipeline calls it once at a time. An error that may pass (a backend that is down, a time limit) has the same
        spans come again later, so a sink may get a span twice; it keeps it once, by `trace_id` and `span_id`. Any other
        error drops them, and they are counted. Raises ProviderUnavailableError, ProviderTimeoutError, RateLimitError
        for what may pass.

        `llamastack doctor` calls it without a span, to know whether spans would arrive: a sink asks its backend, and
        raises what it would raise for spans.
        """


def moment(ns: int) -> datetime:
    """Nanoseconds since 1970 as a moment; microseconds are the finest."""
    return datetime.fromtimestamp(ns // 1000 / 1e6, UTC)
