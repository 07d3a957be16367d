"""Telemetry providers that can list traces, each broken in one way. They are `meta-reference` else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from breaking import breaker
from broken_others import made_from

from llamastack.api.pagination import Page
from llamastack.api.telemetry import LogSeverity, Span, SpanStatus, TraceSummary
from llamastack.provider import InvalidRequestError, NotFoundError
from llamastack_provider_meta_reference import TELEMETRY
from llamastack_provider_meta_reference.telemetry.provider import MetaReferenceTelemetry
from llamastack_telemetry import FinishedSpan

broken = breaker("telemetry", TELEMETRY, made_from(TELEMETRY))


@broken("list_traces.works")
class ListsTheOldestFirst(MetaReferenceTelemetry):
    async def list_traces(self, *args: Any, **arguments: Any) -> Page[TraceSummary]:
        page = await super().list_traces(*args, **arguments)
        return page.model_copy(update={"data": page.data[::-1]})


@broken("list_traces.works")
class CountsNoErrors(MetaReferenceTelemetry):
    async def list_traces(self, *args: Any, **arguments: Any) -> Page[TraceSummary]:
        page = await super().list_traces(*args, **arguments)
        return page.model_copy(update={"data": [each.model_copy(update={"errors": 0}) for each in page.data]})


@broken("list_traces.works")
class ListsNoEnd(MetaReferenceTelemetry):
    async def list_traces(self, *args: Any, **arguments: Any) -> Page[TraceSummary]:
        page = await super().list_traces(*args, **arguments)
        return page.model_copy(update={"data": [each.model_copy(update={"end_time": None}) for each in page.data]})


@broken("list_traces.status")
class TakesEveryTraceForFine(MetaReferenceTelemetry):
    async def list_traces(self, *args: Any, **arguments: Any) -> Page[TraceSummary]:
        page = await super().list_traces(*args, **arguments)
        fine = {"status": SpanStatus.ok}
        return page.model_copy(
            update={"data": [each if each.errors else each.model_copy(update=fine) for each in page.data]}
        )


@broken("list_traces.filters")
class IgnoresSince(MetaReferenceTelemetry):
    async def list_traces(self, *args: Any, **arguments: Any) -> Page[TraceSummary]:
        return await super().list_traces(*args, **(arguments | {"since": None}))


@broken("list_traces.filters")
class IgnoresTheStatus(MetaReferenceTelemetry):
    async def list_traces(self, *args: Any, **arguments: Any) -> Page[TraceSummary]:
        return await super().list_traces(*args, **(arguments | {"status": None}))


@broken("list_traces.filters")
class WantsTheBeginningOfTheName(MetaReferenceTelemetry):
    async def list_traces(self, *args: Any, **arguments: Any) -> Page[TraceSummary]:
        page = await super().list_traces(*args, **arguments)
        wanted = arguments.get("name") or ""
        data = [each for each in page.data if each.name.startswith(wanted)]
        return page.model_copy(update={"data": data})


@broken("list_traces.pages")
class CountsWhatCameBefore(MetaReferenceTelemetry):
    """A page shifts when newer traces arrive."""

    async def list_traces(
        self, since: Any = None, status: Any = None, name: str | None = None, limit: Any = None, after: Any = None
    ) -> Page[TraceSummary]:
        before = int(after or 0)
        every = (await super().list_traces(since, status, name, 1000)).data
        data = every[before : before + (limit or 100)]
        end = before + len(data)
        return Page(data=data, has_more=end < len(every), last_id=str(end))


@broken("list_traces.pages")
class SaysThatThereIsNoMore(MetaReferenceTelemetry):
    async def list_traces(self, *args: Any, **arguments: Any) -> Page[TraceSummary]:
        return (await super().list_traces(*args, **arguments)).model_copy(update={"has_more": False})


@broken("list_traces.cursor")
class BeginsAgainAtAWrongCursor(MetaReferenceTelemetry):
    async def list_traces(self, *args: Any, **arguments: Any) -> Page[TraceSummary]:
        try:
            return await super().list_traces(*args, **arguments)
        except InvalidRequestError:
            return await super().list_traces()


@broken("list_traces.cursor")
class NamesNoParameter(MetaReferenceTelemetry):
    async def list_traces(self, *args: Any, **arguments: Any) -> Page[TraceSummary]:
        try:
            return await super().list_traces(*args, **arguments)
        except InvalidRequestError as error:
            raise InvalidRequestError(error.message) from None


@broken("list_spans.works")
class ForgetsParents(MetaReferenceTelemetry):
    async def list_spans(self, trace_id: str, limit: int | None = None, after: str | None = None) -> Page[Span]:
        page = await super().list_spans(trace_id, limit, after)
        return page.model_copy(
            update={"data": [each.model_copy(update={"parent_span_id": None}) for each in page.data]}
        )


@broken("list_spans.works")
class ForgetsAttributes(MetaReferenceTelemetry):
    async def list_spans(self, trace_id: str, limit: int | None = None, after: str | None = None) -> Page[Span]:
        page = await super().list_spans(trace_id, limit, after)
        return page.model_copy(update={"data": [each.model_copy(update={"attributes": {}}) for each in page.data]})


@broken("list_spans.pages")
class RepeatsTheFirstPage(MetaReferenceTelemetry):
    async def list_spans(self, trace_id: str, limit: int | None = None, after: str | None = None) -> Page[Span]:
        page = await super().list_spans(trace_id, limit)
        return page.model_copy(update={"has_more": page.has_more and after is None})


@broken("list_spans.pages")
class TakesAnyCursor(MetaReferenceTelemetry):
    async def list_spans(self, trace_id: str, limit: int | None = None, after: str | None = None) -> Page[Span]:
        try:
            return await super().list_spans(trace_id, limit, after)
        except InvalidRequestError:
            return Page(data=[])


@broken("list_spans.unknown")
class HasNoSpansOfUnknownTraces(MetaReferenceTelemetry):
    async def list_spans(self, trace_id: str, limit: int | None = None, after: str | None = None) -> Page[Span]:
        try:
            return await super().list_spans(trace_id, limit, after)
        except NotFoundError:
            return Page(data=[])


@broken("export_spans.empty")
class ExpectsAFirstSpan(MetaReferenceTelemetry):
    async def export_spans(self, spans: Sequence[FinishedSpan]) -> None:
        self.newest = spans[0].start_ns
        await super().export_spans(spans)


@broken("export_spans.empty")
class RefusesABatchOfNoSpans(MetaReferenceTelemetry):
    async def export_spans(self, spans: Sequence[FinishedSpan]) -> None:
        if not spans:
            raise InvalidRequestError("there are no spans", param="spans")
        await super().export_spans(spans)


@broken("export_spans.once")
class KeepsASpanTwice(MetaReferenceTelemetry):
    async def export_spans(self, spans: Sequence[FinishedSpan]) -> None:
        for span in spans:
            already = await self._readable.read(lambda store, span=span: store.trace(span.trace_id))
            again = FinishedSpan(span.trace_id, f"{span.span_id[:-1]}x", span.parent_id, "x", "client", 1, 2)
            await super().export_spans([again if already else span])


@broken("export_spans.once")
class KeepsNoSpans(MetaReferenceTelemetry):
    async def export_spans(self, spans: Sequence[FinishedSpan]) -> None: ...


class _Edits(MetaReferenceTelemetry):
    """Keeps something else than what was logged."""

    def edited(self, event: Any) -> Any:
        raise NotImplementedError

    async def log_event(self, event: Any) -> None:
        await super().log_event(self.edited(event))


@broken("get_trace.order")
class TakesTheFirstToComeForTheRoot(MetaReferenceTelemetry):
    async def log_event(self, event: Any) -> None:
        self.__dict__.setdefault("first", {}).setdefault(event.trace_id, event.span_id)
        await super().log_event(event)

    async def get_trace(self, trace_id: str) -> Any:
        trace = await super().get_trace(trace_id)
        return trace.model_copy(update={"root_span_id": self.__dict__["first"][trace_id]})


@broken("get_trace.times")
class KeepsSeconds(_Edits):
    def edited(self, event: Any) -> Any:
        return event.model_copy(update={"timestamp": event.timestamp.replace(microsecond=0)})


@broken("get_trace.times")
class CutsTheZoneOff(_Edits):
    def edited(self, event: Any) -> Any:
        return event.model_copy(update={"timestamp": event.timestamp.replace(tzinfo=UTC)})


@broken("get_trace.times")
class ReturnsNoZone(MetaReferenceTelemetry):
    async def get_trace(self, trace_id: str) -> Any:
        trace = await super().get_trace(trace_id)
        return trace.model_copy(update={"start_time": trace.start_time.replace(tzinfo=None)})


@broken("list_spans.attributes")
class DropsAttributesOfTheEnd(_Edits):
    def edited(self, event: Any) -> Any:
        is_end = event.type == "structured_log" and event.payload.type == "span_end"
        return event.model_copy(update={"attributes": None}) if is_end else event


@broken("list_spans.events")
class CutsMessages(_Edits):
    def edited(self, event: Any) -> Any:
        return event.model_copy(update={"message": event.message[:4096]}) if hasattr(event, "message") else event


@broken("list_spans.events")
class KnowsOneSeverity(_Edits):
    def edited(self, event: Any) -> Any:
        return event.model_copy(update={"severity": LogSeverity.info}) if hasattr(event, "severity") else event


@broken("list_spans.events")
class DropsMetrics(MetaReferenceTelemetry):
    async def log_event(self, event: Any) -> None:
        if event.type != "metric":
            await super().log_event(event)


for _name in ("list_traces", "list_spans"):

    @broken(f"{_name}.refused", capabilities={_name: "unsupported"})
    class HidesLists(MetaReferenceTelemetry): ...


@broken("list_traces.filters")
class ForgetsTheTimeZone(MetaReferenceTelemetry):
    async def list_traces(self, since: datetime | None = None, **arguments: Any) -> Page[TraceSummary]:
        return await super().list_traces(since=None if since is None else since.replace(tzinfo=UTC), **arguments)
