"""The suite of the API telemetry."""

from __future__ import annotations

import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from llamastack.api.telemetry import (
    LogSeverity,
    MetricEvent,
    SpanEndPayload,
    SpanStartPayload,
    SpanStatus,
    StructuredLogEvent,
    UnstructuredLogEvent,
)
from llamastack.provider.errors import LlamaStackError, NotFoundError
from llamastack_conformance.checks import CheckFailure, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.shapes import well_formed
from llamastack_conformance.suites.provider import ProviderConformance
from llamastack_conformance.suites.suite import Probe, refused

_BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class TelemetryConformance(ProviderConformance):
    """All checks of a telemetry provider. Source of the shapes: `llamastack.api.telemetry`."""

    api: ClassVar[str] = "telemetry"

    async def call(self, running: Running, text: str | None = None) -> Any:
        trace_id = text or uuid.uuid4().hex
        await running.calls.log_event(event=_line(trace_id))
        return await running.calls.get_trace(trace_id=trace_id) if running.subject.declares("get_trace") else trace_id

    def answers(self, text: str, result: Any) -> bool:
        return text in (result, getattr(result, "trace_id", None))

    async def probe(self, running: Running, capability: str) -> Probe:
        # The provider is called directly; it may lack a method that it does not declare.
        with suppress(LlamaStackError, NotImplementedError, AttributeError):
            await running.provider.log_event(event=_line("a"))
        probes = {
            "log_event": Probe("log_event", {"event": _line("a")}, lambda _: True),
            "get_trace": Probe("get_trace", {"trace_id": "a"}),
            "list_traces": Probe("list_traces", {}),
            "list_spans": Probe("list_spans", {"trace_id": "a"}),
        }
        return probes[capability]

    @check(
        "log_event.works",
        tier=Tier.live,
        capability="log_event",
        mend="accept events of every type, in any order of time",
    )
    async def test_log_event_works(self, subject: Subject) -> None:
        """events of every type are accepted"""
        trace_id = uuid.uuid4().hex
        async with subject.shared() as running:
            for event in (*_span(trace_id), _line(trace_id), _metric(trace_id)):
                await running.calls.log_event(event=event)

    test_log_event_refused = refused("log_event")

    @check(
        "get_trace.works",
        tier=Tier.live,
        capability="get_trace",
        mend="build the trace from its events: the root span, the first and the last time",
    )
    async def test_get_trace_works(self, subject: Subject) -> None:
        """a trace has its id, its root span, and the times of its first and last event"""
        trace_id = uuid.uuid4().hex
        async with subject.shared() as running:
            for event in _span(trace_id):
                await running.calls.log_event(event=event)
            trace = await running.calls.get_trace(trace_id=trace_id)
        well_formed(subject.method("get_trace"), trace)
        if (trace.trace_id, trace.root_span_id) != (trace_id, "root"):
            raise CheckFailure(f"{trace}", wanted=f"trace {trace_id} with the root span 'root'")
        if (trace.start_time, trace.end_time) != (_BEGAN, _BEGAN + timedelta(seconds=2)):
            raise CheckFailure(
                f"from {trace.start_time} to {trace.end_time}", wanted="2 s from the first event to the last"
            )

    @check("get_trace.unknown", tier=Tier.live, capability="get_trace", mend="raise NotFoundError")
    async def test_get_trace_unknown(self, subject: Subject) -> None:
        """an unknown trace is NotFoundError (404)"""
        async with subject.shared() as running:
            try:
                trace = await running.calls.get_trace(trace_id=uuid.uuid4().hex)
            except NotFoundError:
                return
        raise CheckFailure(f"{trace}")

    test_get_trace_refused = refused("get_trace")


def _line(trace_id: str) -> UnstructuredLogEvent:
    return UnstructuredLogEvent(
        trace_id=trace_id, span_id="root", timestamp=_BEGAN, message="hello", severity=LogSeverity.info
    )


def _metric(trace_id: str) -> MetricEvent:
    return MetricEvent(trace_id=trace_id, span_id="root", timestamp=_BEGAN, metric="tokens", value=7, unit="tokens")


def _span(trace_id: str) -> tuple[StructuredLogEvent, ...]:
    """A root span of two seconds with a child in it."""

    def event(span_id: str, after_s: float, payload: Any) -> StructuredLogEvent:
        moment = _BEGAN + timedelta(seconds=after_s)
        return StructuredLogEvent(trace_id=trace_id, span_id=span_id, timestamp=moment, payload=payload)

    return (
        event("root", 0, SpanStartPayload(name="whole")),
        event("child", 1, SpanStartPayload(name="part", parent_span_id="root")),
        event("root", 2, SpanEndPayload(status=SpanStatus.ok)),
    )
