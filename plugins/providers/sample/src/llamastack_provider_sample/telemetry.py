"""Telemetry that is kept in memory."""

from __future__ import annotations

from llamastack.api.telemetry import Event, SpanStartPayload, StructuredLogEvent, Telemetry, Trace
from llamastack.provider import Deps, NotFoundError
from llamastack_provider_sample.config import SampleTelemetryConfig


class SampleTelemetry(Telemetry):
    """A trace begins with the first event that names it; its root is the first span without a parent."""

    def __init__(self, config: SampleTelemetryConfig) -> None:
        self._max_traces = config.max_traces
        self._traces: dict[str, Trace] = {}

    async def log_event(self, event: Event) -> None:
        trace = self._traces.get(event.trace_id)
        if trace is None:
            trace = Trace(trace_id=event.trace_id, root_span_id=event.span_id, start_time=event.timestamp)
            self._traces[event.trace_id] = trace
            if len(self._traces) > self._max_traces:
                del self._traces[next(iter(self._traces))]
        changed: dict[str, object] = {
            "start_time": min(trace.start_time, event.timestamp),
            "end_time": max(trace.end_time or event.timestamp, event.timestamp),
        }
        if (
            isinstance(event, StructuredLogEvent)
            and isinstance(event.payload, SpanStartPayload)
            and event.payload.parent_span_id is None
        ):
            changed["root_span_id"] = event.span_id
        self._traces[event.trace_id] = trace.model_copy(update=changed)

    async def get_trace(self, trace_id: str) -> Trace:
        trace = self._traces.get(trace_id)
        if trace is None:
            raise NotFoundError(f"no trace '{trace_id}' is known", param="trace_id")
        return trace


async def get_adapter_impl(config: SampleTelemetryConfig, deps: Deps) -> SampleTelemetry:
    return SampleTelemetry(config)
