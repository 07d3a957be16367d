"""Checks of events and spans that cannot be kept, or that nobody reads before the provider stops."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from llamastack.api.telemetry import LogSeverity, UnstructuredLogEvent
from llamastack.provider.errors import LlamaStackError
from llamastack_conformance.checks import CheckFailure, Tier, check
from llamastack_conformance.full_disk import full_disk
from llamastack_conformance.kept_data import KeptData
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.provider import ProviderConformance
from llamastack_conformance.suites.restart import usable
from llamastack_conformance.suites.telemetry_kept import events_of, finished_spans

_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_LARGE = 3_000_000


class TelemetryFaultChecks(ProviderConformance):
    """The checks of what is refused, and of what nobody has read."""

    @check(
        "log_event.unread",
        tier=Tier.live,
        capability="get_trace",
        mend="write what is buffered in `shutdown`, or before log_event returns",
    )
    async def test_log_event_unread(self, subject: Subject) -> None:
        """every event is there after a restart, also if nothing was read between the last event and the stop"""
        trace_ids = [uuid.uuid4().hex for _ in range(3)]
        async with subject.kept_folder() as folder:
            async with subject.start(folder=folder) as running:
                kept = KeptData(running, folder)
                for trace_id in trace_ids:
                    for event in events_of(trace_id):
                        await running.calls.log_event(event=event)
                running.leave()
            kept.require()
            async with subject.start(folder=folder) as running:
                await usable(running)
                for trace_id in trace_ids:
                    trace = await _trace(running, trace_id, "after a restart")
                    last = events_of(trace_id)[-1].timestamp
                    if trace.end_time is None or trace.end_time < last:
                        raise CheckFailure(f"after a restart a trace ends at {trace.end_time}", wanted=f"{last}")

    @check(
        "log_event.refused-or-kept",
        tier=Tier.live,
        capability="get_trace",
        mend="let errors of the check and of the write through: an event that cannot be kept is InvalidRequestError",
    )
    async def test_log_event_refused_or_kept(self, subject: Subject) -> None:
        """an unusual event (an empty or long id, a time long ago or far away, a message of 3 MB) is kept or refused"""
        async with subject.shared() as running:
            for what, event in _unusual():
                try:
                    await running.calls.log_event(event=event)
                except LlamaStackError:
                    continue
                await _trace(running, event.trace_id, f"{what} was taken;")

    @check(
        "export_spans.full-disk",
        tier=Tier.failure,
        capability="list_spans",
        mend="raise ProviderUnavailableError for spans that cannot be written: they come again",
    )
    async def test_export_spans_full_disk(self, subject: Subject) -> None:
        """a `llamastack_telemetry.SpanSink` that cannot write a batch raises an error, and takes the batch later"""
        trace_id = uuid.uuid4().hex
        async with subject.start() as running:
            spans: list[Any] = finished_spans(running.provider, trace_id)
            failed = False
            with full_disk():
                try:
                    await running.provider.export_spans(spans)
                except Exception:  # of any kind: a sink that raises gets the batch again
                    failed = True
            if failed:
                await running.provider.export_spans(spans)
            try:
                found = [span.span_id for span in (await running.calls.list_spans(trace_id=trace_id)).data]
            except LlamaStackError as error:
                found = [error.message]
        if sorted(found) != sorted(span.span_id for span in spans):
            raise CheckFailure(f"export_spans {'failed once' if failed else 'returned'}; then there are {found}")


def _unusual() -> Iterator[tuple[str, UnstructuredLogEvent]]:
    for what, trace_id in {"an empty trace id": "", "a long trace id": uuid.uuid4().hex * 300}.items():
        yield what, _line(trace_id)
    yield "an empty span id", _line(uuid.uuid4().hex, span_id="")
    for year in (1901, 9000):
        yield f"an event of {year}", _line(uuid.uuid4().hex, timestamp=_AT.replace(year=year))
    yield "a message of 3 MB", _line(uuid.uuid4().hex, message="m" * _LARGE)


def _line(trace_id: str, **changes: Any) -> UnstructuredLogEvent:
    fields = {"span_id": "root", "timestamp": _AT, "message": "hello", "severity": LogSeverity.info, **changes}
    return UnstructuredLogEvent(trace_id=trace_id, **fields)


async def _trace(running: Running, trace_id: str, when: str) -> Any:
    try:
        return await running.calls.get_trace(trace_id=trace_id)
    except LlamaStackError as error:
        raise CheckFailure(f"{when} get_trace raises {type(error).__name__}: {error.message[:200]}") from None
