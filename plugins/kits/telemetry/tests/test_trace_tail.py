"""What `llamastack traces tail` shows, for spans that come in any order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from llamastack.api.pagination import Page
from llamastack.api.telemetry import Span, SpanKind, SpanStatus, TraceSummary
from llamastack.provider import InternalError, LlamaStackError, NotFoundError, ProviderUnavailableError
from llamastack_telemetry import trace_tail
from llamastack_telemetry.trace_tail import Tail

pytestmark = pytest.mark.anyio
START = datetime(2026, 11, 29, 12, tzinfo=UTC)


class TracesFake:
    """A telemetry provider whose spans come when a test says so, with the faults that a test wants."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.fault: LlamaStackError | None = None
        self.since: list[datetime | None] = []
        self.gone: set[str] = set()

    def add(self, trace: str, span_id: str, start: float, end: float, **fields: Any) -> None:
        times = {"start_time": START + timedelta(seconds=start), "end_time": START + timedelta(seconds=end)}
        self.spans.append(Span(trace_id=trace, span_id=span_id, name=f"{trace}-{span_id}", **times, **fields))

    async def list_traces(
        self,
        since: datetime | None = None,
        status: SpanStatus | None = None,
        name: str = "",
        limit: int = 20,
        after: str | None = None,
    ) -> Page[TraceSummary]:
        if self.fault is not None:
            raise self.fault
        if limit > 1:
            self.since.append(since)
        traces: dict[str, list[Span]] = {}
        for span in self.spans:
            traces.setdefault(span.trace_id, []).append(span)
        found = sorted((_summary(spans) for spans in traces.values()), key=lambda each: each.start_time)[::-1]
        kept = [
            each
            for each in found
            if (since is None or each.start_time >= since) and status in (None, each.status) and name in each.name
        ]
        at = 0 if after is None else int(after)
        return Page(data=kept[at : at + limit], has_more=at + limit < len(kept), last_id=str(at + limit))

    async def list_spans(self, trace_id: str, limit: int = 20, after: str | None = None) -> Page[Span]:
        if trace_id in self.gone:
            raise NotFoundError("gone")
        return Page(data=[span for span in self.spans if span.trace_id == trace_id])


def _summary(spans: list[Span]) -> TraceSummary:
    first = min(spans, key=lambda span: span.start_time)
    errors = sum(span.status is SpanStatus.error for span in spans)
    return TraceSummary(
        trace_id=first.trace_id,
        root_span_id=first.span_id,
        start_time=first.start_time,
        end_time=max(span.end_time for span in spans if span.end_time is not None),
        name=first.name,
        status=SpanStatus.error if errors else SpanStatus.ok,
        spans=len(spans),
        errors=errors,
    )


class Watched:
    """A tail, and what it showed: ids of spans, one list for each tree."""

    def __init__(self, **filters: Any) -> None:
        self.server = TracesFake()
        self.shown: list[list[str]] = []
        self.said: list[str] = []
        output: Any = SimpleNamespace(say=lambda text, err: self.said.append(text))
        client: Any = SimpleNamespace(telemetry=self.server)
        self.tail = Tail(client, output, lambda spans: self.shown.append([each.span_id for each in spans]), **filters)

    async def news(self, looks: int = 1) -> list[list[str]]:
        """What it shows in the next looks."""
        self.shown.clear()
        for _ in range(looks):
            await self.tail.look()
        return list(self.shown)


async def test_traces_that_finish_between_two_looks_are_shown_once_each_the_oldest_first() -> None:
    at = Watched()
    at.server.add("before", "0", 0, 1)
    await at.tail.begin()
    assert await at.news() == []
    for number in range(2500):  # more than a page
        at.server.add(f"t{number}", f"s{number}", 2 + number / 1000, 3 + number)
    assert await at.news() == [[f"s{number}"] for number in range(2500)]
    assert await at.news(8) == []


async def test_a_trace_is_shown_when_its_root_comes() -> None:
    at = Watched()
    await at.tail.begin()
    at.server.add("a", "call", 1, 2, parent_span_id="request")
    assert await at.news() == []
    at.server.add("a", "request", 0, 3, parent_span_id="of the client", kind=SpanKind.server)
    assert await at.news() == [["request", "call"]]
    at.server.add("a", "next", 4, 5, parent_span_id="of the client", kind=SpanKind.server)
    at.server.add("a", "late", 1, 6, parent_span_id="request")
    assert await at.news() == [["late"], ["next"]]
    assert await at.news() == []


async def test_a_root_that_never_comes_is_not_waited_for_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    at = Watched()
    await at.tail.begin()
    at.server.add("a", "call", 1, 2, parent_span_id="lost")
    assert await at.news(3) == []
    monkeypatch.setattr(trace_tail, "_SETTLED_S", 0)
    assert await at.news(3) == [["call"]]


async def test_a_trace_that_took_long_is_found_and_most_looks_go_back_little() -> None:
    at = Watched()
    await at.tail.begin()
    at.server.add("new", "new", 1000, 1001)
    await at.news()
    at.server.add("long", "long", 0, 1002)
    assert await at.news(127) == [["long"]]
    back = [at.server.since[0], *(START + timedelta(seconds=1000) - since for since in at.server.since[2:] if since)]
    assert sorted(map(str, back))[0] == "0:00:15"
    assert sum(each == timedelta(seconds=15) for each in back) >= 60


async def test_only_errors_or_names() -> None:
    at = Watched(errors=True, name="a-")
    await at.tail.begin()
    at.server.add("a", "ok", 1, 2)
    at.server.add("a", "bad", 3, 4, status=SpanStatus.error)
    at.server.add("b", "b", 3, 4, status=SpanStatus.error)
    assert await at.news() == [["bad"]]
    assert at.tail._newest == START + timedelta(seconds=3)


async def test_a_trace_that_is_deleted_meanwhile_is_no_error() -> None:
    at = Watched()
    await at.tail.begin()
    at.server.add("a", "a", 1, 2)
    at.server.add("b", "b", 1, 2)
    at.server.gone = {"a"}
    assert await at.news() == [["b"]]


async def test_what_is_remembered_is_bounded_and_nothing_comes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_tail, "_MOST_REMEMBERED", 10)
    at = Watched()
    await at.tail.begin()
    for number in range(30):
        at.server.add(f"t{number}", f"s{number}", number, number + 1)
    assert await at.news(9) == [[f"s{number}"] for number in range(30)]
    assert len(at.tail._known) == 10


async def test_a_server_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_tail, "LOOK_EVERY_S", 0.001)
    at = Watched()
    await at.tail.begin()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(at.tail.run)
            at.server.fault = ProviderUnavailableError("it restarts")
            while not at.said:
                await anyio.sleep(0.001)
            at.server.add("a", "a", 1, 2)
            at.server.fault = None
            while not at.shown:
                await anyio.sleep(0.001)
            tasks.cancel_scope.cancel()
    assert at.said == ["warning: it restarts; waiting for the server", "the server answers again"]
    at.server.fault = InternalError("broken")
    with pytest.raises(InternalError, match="broken"):
        await at.tail.run()
