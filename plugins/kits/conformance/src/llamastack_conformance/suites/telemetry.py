"""The suite of the API telemetry."""

from __future__ import annotations

import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, ClassVar

from llamastack.api.pagination import all_listed
from llamastack.api.telemetry import (
    LogSeverity,
    MetricEvent,
    SpanEndPayload,
    SpanStartPayload,
    SpanStatus,
    StructuredLogEvent,
    UnstructuredLogEvent,
)
from llamastack.provider.errors import InvalidRequestError, LlamaStackError, NotFoundError
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.shapes import well_formed
from llamastack_conformance.suites.suite import Probe, refused
from llamastack_conformance.suites.telemetry_faults import TelemetryFaultChecks
from llamastack_conformance.suites.telemetry_kept import KeptChecks, finished_spans, kit_of_sink

_BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class TelemetryConformance(KeptChecks, TelemetryFaultChecks):
    """All checks of a telemetry provider. Source of the shapes: `llamastack.api.telemetry`."""

    api: ClassVar[str] = "telemetry"
    _kept_id = ""

    async def call(self, running: Running, text: str | None = None) -> Any:
        trace_id = text or uuid.uuid4().hex
        await running.calls.log_event(event=_line(trace_id))
        return await running.calls.get_trace(trace_id=trace_id) if running.subject.declares("get_trace") else trace_id

    async def put_content(self, running: Running) -> None:
        self._kept_id = uuid.uuid4().hex
        for event in (*_span(self._kept_id), _line(self._kept_id)):
            await running.calls.log_event(event=event)

    async def content(self, running: Running) -> Any:
        """A trace of two spans, and the spans if the provider lists them: with what was logged last."""
        if not running.subject.declares("get_trace"):
            raise NotApplicable("the provider does not declare `get_trace`")
        found = [await running.calls.get_trace(trace_id=self._kept_id)]
        if running.subject.declares("list_spans"):
            found.append(await running.calls.list_spans(trace_id=self._kept_id))
        return [each.model_dump(mode="json") for each in found]

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

    # ---- lists ---------------------------------------------------------------------------------------------------

    @check(
        "list_traces.works",
        tier=Tier.live,
        capability="list_traces",
        mend="list each trace with the name of its root span, its times, its spans and how many of them failed",
    )
    async def test_list_traces_works(self, subject: Subject) -> None:
        """traces are listed with what their spans say, the newest first"""
        name = uuid.uuid4().hex
        async with subject.shared() as running:
            ids = [await _logged_trace(running, f"{name} {number}", number) for number in (1, 2, 0)]
            page = await running.calls.list_traces(name=name, limit=1000)
        well_formed(subject.method("list_traces"), page)
        found = [
            (each.trace_id, each.name, each.status and each.status.value, each.spans, each.errors) for each in page.data
        ]
        wanted = [
            (ids[place], f"{name} {number}", "error" if number == 2 else "ok", 2, int(number == 2))
            for place, number in ((1, 2), (0, 1), (2, 0))
        ]
        if found != wanted:
            raise CheckFailure(f"{found}", wanted=f"id, name, status, spans and errors of each trace: {wanted}")
        times = [(each.root_span_id, each.start_time, each.end_time) for each in page.data]
        if times != [("root", _at(10 * n), _at(10 * n + 2)) for n in (2, 1, 0)]:
            raise CheckFailure(f"{times}", wanted="the root span, its start and its end")

    @check(
        "list_traces.status",
        tier=Tier.live,
        capability="list_traces",
        mend="give a trace no status while none of its spans failed and its root has none",
    )
    async def test_list_traces_status(self, subject: Subject) -> None:
        """a trace whose root has no status has none, and is not listed among those that are `ok`"""
        trace_id = uuid.uuid4().hex
        name = uuid.uuid4().hex
        async with subject.shared() as running:
            for event in _span(trace_id, name)[:2]:
                await running.calls.log_event(event=event)
            page = await running.calls.list_traces(name=name)
            fine = await running.calls.list_traces(name=name, status=SpanStatus.ok)
        if [each.status for each in page.data] != [None]:
            raise CheckFailure(f"{[each.status for each in page.data]}", wanted="one trace, without a status")
        if fine.data:
            raise CheckFailure("it is listed with the status 'ok'", wanted="no trace")

    @check(
        "list_traces.filters",
        tier=Tier.live,
        capability="list_traces",
        mend="apply `since`, `status` and `name` before the page is cut",
    )
    async def test_list_traces_filters(self, subject: Subject) -> None:
        """`since`, in any time zone, `status` and `name` leave out the other traces"""
        name = uuid.uuid4().hex
        async with subject.shared() as running:
            ids = [await _logged_trace(running, f"{name} {number}", number) for number in range(4)]
            for wanted, arguments in (
                ([2], {"name": name, "status": SpanStatus.error}),
                ([3, 1, 0], {"name": name, "status": SpanStatus.ok}),
                ([3, 2], {"name": name, "since": _at(20)}),
                ([3, 2], {"name": name, "since": _at(20).astimezone(timezone(timedelta(hours=9, minutes=30)))}),
                ([1], {"name": f"{name[1:]} 1"}),
                ([], {"name": uuid.uuid4().hex}),
            ):
                page = await running.calls.list_traces(limit=100, **arguments)
                found = [each.trace_id for each in page.data]
                if found != [ids[number] for number in wanted]:
                    raise CheckFailure(
                        f"{len(found)} traces with {arguments}", wanted=f"the {len(wanted)} that fit, the newest first"
                    )

    @check(
        "list_traces.pages",
        tier=Tier.live,
        capability="list_traces",
        mend="let `last_id` say where the page ended, not how many traces came before",
    )
    async def test_list_traces_pages(self, subject: Subject) -> None:
        """pages have every trace once, although newer traces arrive meanwhile"""
        name = uuid.uuid4().hex
        async with subject.shared() as running:
            ids = [await _logged_trace(running, name, number) for number in range(5)]
            first = await running.calls.list_traces(name=name, limit=2)
            if not first.has_more or first.last_id is None:
                raise CheckFailure(f"{len(first.data)} of 5 traces, and has_more is {first.has_more}")
            await _logged_trace(running, name, 9)
            rest = all_listed(running.calls.list_traces, name=name, limit=2, after=first.last_id)
            found = [each.trace_id for each in first.data] + [each.trace_id async for each in rest]
        if found != ids[::-1]:
            raise CheckFailure(
                f"{len(found)} traces, {len({*found})} of them different", wanted="the 5 traces, each once"
            )

    @check(
        "list_traces.cursor",
        tier=Tier.live,
        capability="list_traces",
        mend="raise InvalidRequestError with param='after' for an `after` that no page had as `last_id`",
    )
    async def test_list_traces_cursor(self, subject: Subject) -> None:
        """an `after` that is none is InvalidRequestError (400) that names it"""
        async with subject.shared() as running:
            await _refuses_cursor(running.calls.list_traces)

    test_list_traces_refused = refused("list_traces")

    @check(
        "list_spans.works",
        tier=Tier.live,
        capability="list_spans",
        mend="list the spans of a trace by their start, with parent, times, status and attributes",
    )
    async def test_list_spans_works(self, subject: Subject) -> None:
        """the spans of a trace are listed in the order in which they began, with what was logged of them"""
        trace_id = uuid.uuid4().hex
        async with subject.shared() as running:
            for event in reversed(_span(trace_id)):
                await running.calls.log_event(event=event)
            page = await running.calls.list_spans(trace_id=trace_id)
        well_formed(subject.method("list_spans"), page)
        found = [(each.span_id, each.parent_span_id, each.name, each.start_time, each.end_time) for each in page.data]
        wanted = [("root", None, "whole", _at(0), _at(2)), ("child", "root", "part", _at(1), None)]
        if found != wanted:
            raise CheckFailure(f"{found}", wanted=f"{wanted}")
        attributes = page.data[1].attributes
        if attributes.get("number") != 1:
            raise CheckFailure(f"attributes {attributes}", wanted="the attributes of the event: {'number': 1}")

    @check(
        "list_spans.pages",
        tier=Tier.live,
        capability="list_spans",
        mend="let `last_id` say where the page ended, and has_more whether there are further spans",
    )
    async def test_list_spans_pages(self, subject: Subject) -> None:
        """pages have every span once; an `after` that is none is InvalidRequestError (400)"""
        trace_id = uuid.uuid4().hex
        async with subject.shared() as running:
            for number in range(5):
                await running.calls.log_event(event=_started(trace_id, f"s{number}", number, parent=None))
            every = all_listed(running.calls.list_spans, trace_id=trace_id, limit=2)
            found = [each.span_id async for each in every]
            if found != [f"s{number}" for number in range(5)]:
                raise CheckFailure(f"{found}", wanted="s0 to s4, each once, in this order")
            await _refuses_cursor(running.calls.list_spans, trace_id=trace_id)

    @check("list_spans.unknown", tier=Tier.live, capability="list_spans", mend="raise NotFoundError")
    async def test_list_spans_unknown(self, subject: Subject) -> None:
        """the spans of an unknown trace are NotFoundError (404)"""
        async with subject.shared() as running:
            try:
                page = await running.calls.list_spans(trace_id=uuid.uuid4().hex)
            except NotFoundError:
                return
        raise CheckFailure(f"{page}")

    test_list_spans_refused = refused("list_spans")

    @check(
        "export_spans.empty",
        tier=Tier.live,
        mend="let export_spans([]) return: ask the backend, or do nothing; do not expect a first span",
    )
    async def test_export_spans_empty(self, subject: Subject) -> None:
        """a `llamastack_telemetry.SpanSink` takes a batch of no spans, which is how `llamastack doctor` tries it"""
        async with subject.shared() as running:
            kit_of_sink(running.provider)
            await running.provider.export_spans([])

    @check(
        "export_spans.once",
        tier=Tier.live,
        capability="list_spans",
        mend="keep a span once by its trace_id and span_id: after an error that may pass it comes again",
    )
    async def test_export_spans_once(self, subject: Subject) -> None:
        """a provider that is a `llamastack_telemetry.SpanSink` keeps each span once, although it may come again, alone
        or in the same batch
        """
        trace_id = uuid.uuid4().hex
        async with subject.shared() as running:
            spans = finished_spans(running.provider, trace_id)
            for batch in (spans[:1], spans, spans, [*spans]):
                await running.provider.export_spans(batch)
            page = await running.calls.list_spans(trace_id=trace_id)
        found = [(each.span_id, each.parent_span_id, each.attributes, each.status) for each in page.data]
        wanted = [(each.span_id, each.parent_id, each.attributes, SpanStatus.ok) for each in reversed(spans)]
        if found != wanted:
            raise CheckFailure(f"{found}", wanted=f"{wanted}")


def _line(trace_id: str) -> UnstructuredLogEvent:
    return UnstructuredLogEvent(
        trace_id=trace_id, span_id="root", timestamp=_BEGAN, message="hello", severity=LogSeverity.info
    )


def _metric(trace_id: str) -> MetricEvent:
    return MetricEvent(trace_id=trace_id, span_id="root", timestamp=_BEGAN, metric="tokens", value=7, unit="tokens")


def _span(trace_id: str, name: str = "whole", after_s: float = 0) -> tuple[StructuredLogEvent, ...]:
    """A root span of two seconds with a child in it."""
    return (
        _started(trace_id, "root", after_s, name, parent=None),
        _started(trace_id, "child", after_s + 1, "part"),
        _ended(trace_id, "root", after_s + 2, SpanStatus.ok),
    )


def _started(
    trace_id: str, span_id: str, after_s: float, name: str = "part", parent: str | None = "root"
) -> StructuredLogEvent:
    payload = SpanStartPayload(name=name, parent_span_id=parent)
    return StructuredLogEvent(
        trace_id=trace_id, span_id=span_id, timestamp=_at(after_s), attributes={"number": 1}, payload=payload
    )


def _ended(trace_id: str, span_id: str, after_s: float, status: SpanStatus) -> StructuredLogEvent:
    payload = SpanEndPayload(status=status)
    return StructuredLogEvent(trace_id=trace_id, span_id=span_id, timestamp=_at(after_s), payload=payload)


def _at(after_s: float) -> datetime:
    return _BEGAN + timedelta(seconds=after_s)


async def _logged_trace(running: Running, name: str, number: int) -> str:
    """Log a trace that begins 10 s after the one of the number before; in number 2 a span fails."""
    trace_id = uuid.uuid4().hex
    failed = _ended(trace_id, "child", 10 * number + 1.5, SpanStatus.error if number == 2 else SpanStatus.ok)
    for event in (*_span(trace_id, name, 10 * number), failed):
        await running.calls.log_event(event=event)
    return trace_id


async def _refuses_cursor(method: Any, **arguments: Any) -> None:
    try:
        page = await method(after="no cursor", **arguments)
    except InvalidRequestError as error:
        if error.param != "after":
            raise CheckFailure(f"InvalidRequestError with param {error.param!r}", wanted="param 'after'") from None
        return
    raise CheckFailure(f"a page of {len(page.data)}")
