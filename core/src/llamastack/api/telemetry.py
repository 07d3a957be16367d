"""Telemetry: log events, read traces."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, Field

from llamastack.api.base import WireModel
from llamastack.api.webmethod import not_served, webmethod


class SpanStatus(StrEnum):
    ok = "ok"
    error = "error"


class LogSeverity(StrEnum):
    verbose = "verbose"
    debug = "debug"
    info = "info"
    warn = "warn"
    error = "error"
    critical = "critical"


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


Timestamp = Annotated[datetime, AfterValidator(_in_utc)]
"""A moment; one without a time zone is taken for UTC."""


class _Event(WireModel):
    trace_id: str
    span_id: str
    timestamp: Timestamp
    attributes: dict[str, Any] | None = None


class UnstructuredLogEvent(_Event):
    type: Literal["unstructured_log"] = "unstructured_log"
    message: str
    severity: LogSeverity


class MetricEvent(_Event):
    type: Literal["metric"] = "metric"
    metric: str
    value: int | float
    unit: str


class SpanStartPayload(WireModel):
    type: Literal["span_start"] = "span_start"
    name: str
    parent_span_id: str | None = None


class SpanEndPayload(WireModel):
    type: Literal["span_end"] = "span_end"
    status: SpanStatus


class StructuredLogEvent(_Event):
    type: Literal["structured_log"] = "structured_log"
    payload: Annotated[SpanStartPayload | SpanEndPayload, Field(discriminator="type")]


Event = Annotated[UnstructuredLogEvent | MetricEvent | StructuredLogEvent, Field(discriminator="type")]


class Trace(WireModel):
    trace_id: str
    root_span_id: str
    start_time: datetime
    end_time: datetime | None = None


class Telemetry(Protocol):
    """Take in and give back what happened."""

    @webmethod("/telemetry/log_event", capability="log_event")
    async def log_event(self, event: Event) -> None:
        """Take in one event."""
        raise not_served()

    @webmethod("/telemetry/get_trace", methods=("GET",), capability="get_trace")
    async def get_trace(self, trace_id: str) -> Trace:
        """One trace by its id; an unknown id is a 404."""
        raise not_served()
