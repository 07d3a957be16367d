"""Telemetry: log events, read traces."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal, Protocol

from pydantic import AfterValidator, Field

from llamastack.api.base import OMIT_IF_NONE, JsonObject, WireModel
from llamastack.api.pagination import Limit, Page
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


class TraceSummary(Trace):
    """A trace in a list. The numbers are of all of its spans that are known."""

    name: str
    """Of its root span."""
    status: SpanStatus | None
    """`error` if any of its spans failed, else that of its root; None if its root has none, such as after an error of
    the client or a cancelled call, or while it has not ended."""
    spans: int
    """How many spans it has."""
    errors: int
    """How many of them failed."""
    input_tokens: Annotated[int | None, OMIT_IF_NONE] = None
    """Tokens that models read; None if no span says so."""
    output_tokens: Annotated[int | None, OMIT_IF_NONE] = None
    """Tokens that models wrote; None if no span says so."""
    cost: Annotated[float | None, OMIT_IF_NONE] = None
    """In `cost_currency`; None if no span has a cost, or if their currencies differ."""
    cost_currency: Annotated[str | None, OMIT_IF_NONE] = None
    """ISO 4217 code of the cost; None if there is no cost, or if the spans do not say it."""


class SpanKind(StrEnum):
    """Where a span stands between processes, as OpenTelemetry has it."""

    internal = "internal"
    server = "server"
    client = "client"
    producer = "producer"
    consumer = "consumer"


class SpanEvent(WireModel):
    """Something that happened in a span at one moment."""

    name: str
    """What happened."""
    timestamp: Timestamp
    """When it happened."""
    attributes: JsonObject = Field(default_factory=dict)
    """More about it, by name."""


class Span(WireModel):
    """A part of a trace: a request, or a call of a provider."""

    trace_id: str
    """The trace that it belongs to."""
    span_id: str
    """Its own id, unique in its trace."""
    parent_span_id: str | None = None
    """The span that it is part of; None for the root. The parent may be in another process, and not be known here."""
    name: str
    """What it is about."""
    kind: SpanKind = SpanKind.internal
    """Where it stands between processes."""
    start_time: Timestamp
    """When it began."""
    end_time: Timestamp | None = None
    """When it ended; None while it has not."""
    status: SpanStatus | None = None
    """How it ended."""
    status_message: Annotated[str | None, OMIT_IF_NONE] = None
    """Why it failed."""
    attributes: JsonObject = Field(default_factory=dict)
    """More about it, by name. Names of calls of models: https://github.com/open-telemetry/semantic-conventions-genai."""
    events: list[SpanEvent] = Field(default_factory=list)
    """What happened in it, in order of time."""


class Telemetry(Protocol):
    """Store events and return them as traces."""

    @webmethod("/telemetry/log_event", capability="log_event", instances="all")
    async def log_event(self, event: Event) -> None:
        """Store one event; the events of a trace may come in any order."""
        raise not_served()

    @webmethod("/telemetry/get_trace", methods=("GET",), capability="get_trace", instances="first")
    async def get_trace(self, trace_id: str) -> Trace:
        """One trace by its id. Raises NotFoundError for an id that is not known."""
        raise not_served()

    @webmethod("/telemetry/list_traces", methods=("GET",), capability="list_traces", instances="first")
    async def list_traces(
        self,
        since: Timestamp | None = None,
        status: SpanStatus | None = None,
        name: str | None = None,
        limit: Limit | None = None,
        after: str | None = None,
    ) -> Page[TraceSummary]:
        """Traces, the newest first.

        since: only those that began then or later. status: only those that ended so. name: only those whose root span
        has this text in its name.
        """
        raise not_served()

    @webmethod("/telemetry/list_spans", methods=("GET",), capability="list_spans", instances="first")
    async def list_spans(self, trace_id: str, limit: Limit | None = None, after: str | None = None) -> Page[Span]:
        """The spans of a trace in the order in which they began: the whole tree, by `parent_span_id`.

        Raises NotFoundError for an id that is not known.
        """
        raise not_served()
