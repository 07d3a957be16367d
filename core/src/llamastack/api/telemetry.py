"""Telemetry: log events, read traces."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal, Protocol

from pydantic import AfterValidator, Field

from llamastack.api.base import JsonObject, WireModel
from llamastack.api.webmethod import not_served, webmethod


class SpanStatus(StrEnum):
    """How a span ended."""

    ok = "ok"
    error = "error"


class LogSeverity(StrEnum):
    """How bad, or how important, what a log line says is."""

    verbose = "verbose"
    debug = "debug"
    info = "info"
    warn = "warn"
    error = "error"
    critical = "critical"


Timestamp = Annotated[datetime, AfterValidator(lambda moment: moment if moment.tzinfo else moment.replace(tzinfo=UTC))]
"""A moment; one without a time zone is taken for UTC."""


class _Event(WireModel):
    trace_id: str
    """The trace that it belongs to."""
    span_id: str
    """The span of the trace that it happened in."""
    timestamp: Timestamp
    """When it happened."""
    attributes: JsonObject | None = None
    """More about it, by name."""


class UnstructuredLogEvent(_Event):
    """A line of a log."""

    type: Literal["unstructured_log"] = "unstructured_log"
    message: str
    """The text."""
    severity: LogSeverity
    """How bad it is."""


class MetricEvent(_Event):
    """One value of something that is measured."""

    type: Literal["metric"] = "metric"
    metric: str
    """The name of what is measured."""
    value: int | float
    """In `unit`."""
    unit: str
    """Such as `ms` or `tokens`."""


class SpanStartPayload(WireModel):
    """A span has begun."""

    type: Literal["span_start"] = "span_start"
    name: str
    """What the span is about."""
    parent_span_id: str | None = None
    """The span that it is part of; None for the root of a trace."""


class SpanEndPayload(WireModel):
    """A span has ended."""

    type: Literal["span_end"] = "span_end"
    status: SpanStatus
    """How it ended."""


class StructuredLogEvent(_Event):
    """The beginning or the end of a span."""

    type: Literal["structured_log"] = "structured_log"
    payload: Annotated[SpanStartPayload | SpanEndPayload, Field(discriminator="type")]
    """Which of the two."""


Event = Annotated[UnstructuredLogEvent | MetricEvent | StructuredLogEvent, Field(discriminator="type")]
"""An event of any kind; `type` tells which."""


class Trace(WireModel):
    """A trace: a tree of spans."""

    trace_id: str
    """Its id, as the events have it."""
    root_span_id: str
    """The span that has no parent."""
    start_time: datetime
    """When it began."""
    end_time: datetime | None = None
    """When it ended, as far as that is known."""


class Telemetry(Protocol):
    """Store events and return them as traces."""

    @webmethod("/telemetry/log_event", capability="log_event")
    async def log_event(self, event: Event) -> None:
        """Store one event; the events of a trace may come in any order."""
        raise not_served()

    @webmethod("/telemetry/get_trace", methods=("GET",), capability="get_trace")
    async def get_trace(self, trace_id: str) -> Trace:
        """One trace by its id. Raises NotFoundError for an id that is not known."""
        raise not_served()
