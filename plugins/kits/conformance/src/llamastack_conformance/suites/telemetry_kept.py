"""Checks of what is kept of events: in any order, to the millisecond, with all attributes and whole messages."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import permutations
from typing import Any

from llamastack.api.telemetry import (
    LogSeverity,
    MetricEvent,
    SpanEndPayload,
    SpanStartPayload,
    SpanStatus,
    StructuredLogEvent,
    UnstructuredLogEvent,
)
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.provider import ProviderConformance

_BEGAN = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
_LASTED = timedelta(milliseconds=1234)
_EASTERN = timezone(timedelta(hours=5, minutes=30))
_NEAR = timedelta(milliseconds=1)
_LONG = 10_000


class KeptChecks(ProviderConformance):
    """The checks of kept events."""

    @check(
        "get_trace.order",
        tier=Tier.live,
        capability="get_trace",
        mend="take the span whose start has no parent for the root, and the least and the greatest time of all events",
    )
    async def test_get_trace_order(self, subject: Subject) -> None:
        """the root span and the times of a trace are the same in whatever order its events come"""
        async with subject.shared() as running:
            for order in permutations(range(4)):
                trace_id = uuid.uuid4().hex
                events = events_of(trace_id)
                await _log(running, [events[place] for place in order])
                trace = await running.calls.get_trace(trace_id=trace_id)
                if trace.root_span_id != "root":
                    raise CheckFailure(f"the root is '{trace.root_span_id}' in the order {order}", wanted="'root'")
                _require_times(trace.start_time, trace.end_time, f"in the order {order}")

    @check(
        "get_trace.times",
        tier=Tier.live,
        capability="get_trace",
        mend="keep moments to the millisecond or better; convert those of other time zones, do not cut the zone off",
    )
    async def test_get_trace_times(self, subject: Subject) -> None:
        """times are kept to the millisecond and have a time zone; a time of another zone is the same moment"""
        async with subject.shared() as running:
            for zone in (UTC, _EASTERN):
                trace_id = uuid.uuid4().hex
                await _log(running, events_of(trace_id, zone))
                trace = await running.calls.get_trace(trace_id=trace_id)
                _require_times(trace.start_time, trace.end_time, f"logged in {zone}")

    @check(
        "list_spans.attributes",
        tier=Tier.live,
        capability="list_spans",
        mend="put the attributes of the end beside those of the start",
    )
    async def test_list_spans_attributes(self, subject: Subject) -> None:
        """attributes of the end of a span are kept beside those of its start, whichever comes first, with its times"""
        async with subject.shared() as running:
            for turn in (1, -1):
                trace_id = uuid.uuid4().hex
                await _log(running, [*events_of(trace_id, _EASTERN)][::turn])
                page = await running.calls.list_spans(trace_id=trace_id)
                for span in page.data:
                    wanted = {"at_start": span.span_id, "at_end": 2.5}
                    found = {name: span.attributes.get(name) for name in wanted}
                    if found != wanted:
                        raise CheckFailure(f"span '{span.span_id}' has {span.attributes}", wanted=f"{wanted}")
                    _require_times(span.start_time, span.end_time, f"of span '{span.span_id}'", exact=False)

    @check(
        "list_spans.events",
        tier=Tier.live,
        capability="list_spans",
        mend="keep log lines with message and severity, and metrics with name, value and unit, as events of their span",
    )
    async def test_list_spansevents_of(self, subject: Subject) -> None:
        """log lines of each severity and metrics are events of their span; a message of 10,000 characters is whole"""
        trace_id = uuid.uuid4().hex
        async with subject.shared() as running:
            lines = [_line(trace_id, severity) for severity in LogSeverity]
            metric = MetricEvent(
                trace_id=trace_id, span_id="root", timestamp=_BEGAN, metric="waited", value=7.25, unit="ms"
            )
            await _log(running, [*events_of(trace_id), *lines, metric])
            page = await running.calls.list_spans(trace_id=trace_id)
        kept = [
            {event.name, *(str(value) for value in event.attributes.values())}
            for span in page.data
            if span.span_id == "root"
            for event in span.events
        ]
        for wanted in (*({line.message, line.severity.value} for line in lines), {"waited", "7.25", "ms"}):
            if not any(wanted <= found for found in kept):
                shown = ", ".join(sorted(text[:40] for text in wanted))
                raise CheckFailure(f"no event of {len(kept)} has {shown} whole")


async def _log(running: Running, events: Sequence[Any]) -> None:
    for event in events:
        await running.calls.log_event(event=event)


def events_of(trace_id: str, zone: timezone = UTC) -> tuple[StructuredLogEvent, ...]:
    """Start and end of a root and of a child in it, which ends before the root does."""

    def event(span_id: str, at: timedelta, payload: Any, attributes: dict[str, Any]) -> StructuredLogEvent:
        moment = (_BEGAN + at).astimezone(zone)
        return StructuredLogEvent(
            trace_id=trace_id, span_id=span_id, timestamp=moment, payload=payload, attributes=attributes
        )

    ok, little = SpanEndPayload(status=SpanStatus.ok), timedelta(milliseconds=100)
    ended = {"at_end": 2.5}
    return (
        event("root", timedelta(), SpanStartPayload(name="whole"), {"at_start": "root"}),
        event("child", little, SpanStartPayload(name="part", parent_span_id="root"), {"at_start": "child"}),
        event("child", _LASTED - little, ok, ended),
        event("root", _LASTED, ok, ended),
    )


def _line(trace_id: str, severity: LogSeverity) -> UnstructuredLogEvent:
    message = f"{severity.value} ".ljust(_LONG - 1, "m") + "."
    return UnstructuredLogEvent(trace_id=trace_id, span_id="root", timestamp=_BEGAN, message=message, severity=severity)


def _require_times(start: datetime, end: datetime | None, where: str, exact: bool = True) -> None:
    """Of the root; not `exact`: of any of the two spans."""
    near = _NEAR if exact else timedelta(milliseconds=101)
    for found, wanted in ((start, _BEGAN), (end, _BEGAN + _LASTED)):
        if found is None or found.tzinfo is None or abs(found - wanted) >= near:
            raise CheckFailure(f"{found} {where}", wanted=f"{wanted}, with a time zone")


def kit_of_sink(provider: object) -> Any:
    """The package `llamastack_telemetry`, for a sink. Raises NotApplicable for a provider that is none."""
    try:
        telemetry = importlib.import_module("llamastack_telemetry")
    except ImportError:
        raise NotApplicable("llamastack-telemetry, which has SpanSink, is not installed") from None
    if not isinstance(provider, telemetry.SpanSink):
        raise NotApplicable("the provider is no SpanSink: it gets spans as events")
    return telemetry


def finished_spans(provider: object, trace_id: str) -> list[Any]:
    """A call and its request, the call first, as it ends first. Raises NotApplicable if the provider takes no spans."""
    telemetry = kit_of_sink(provider)
    began = int(_BEGAN.timestamp()) * 10**9
    call, request = uuid.uuid4().hex[:16], uuid.uuid4().hex[:16]
    return [
        telemetry.FinishedSpan(
            trace_id, call, request, "chat m", "client", began + 1000, began + 2000, "ok", "", {"n": 1}
        ),
        telemetry.FinishedSpan(trace_id, request, None, "POST /x", "server", began, began + 3000, "ok"),
    ]
