"""The provider: events and spans go to its sinks, and traces are read from the SQLite file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TypeVar

import anyio.to_thread
from anyio import CapacityLimiter

from llamastack.api.pagination import Page
from llamastack.api.telemetry import Event, SpanStatus, Telemetry, Trace, TraceSummary
from llamastack.api.telemetry import Span as WireSpan
from llamastack.provider import Deps, NotFoundError
from llamastack_provider_meta_reference.telemetry.config import TelemetryConfig
from llamastack_provider_meta_reference.telemetry.trace_store import TraceStore
from llamastack_telemetry import FinishedSpan, moment

_T = TypeVar("_T")


class MetaReferenceTelemetry(Telemetry):
    """Keeps what happens in a file."""

    def __init__(self, config: TelemetryConfig, deps: Deps) -> None:
        self._path = config.path or deps.state_dir / "traces.sqlite"
        self._one = CapacityLimiter(1)  # one thread at a time uses the connection
        self._store: TraceStore | None = None

    async def initialize(self) -> None:
        """Raises OSError or sqlite3.Error where the file cannot be used."""
        self._store = await anyio.to_thread.run_sync(TraceStore, self._path, limiter=self._one)

    async def shutdown(self) -> None:
        if self._store is not None:
            await self._do(self._store.close)

    async def export_spans(self, spans: Sequence[FinishedSpan]) -> None:
        await self._do(lambda: self._opened.add(spans))

    async def log_event(self, event: Event) -> None:
        """Not kept yet."""

    async def get_trace(self, trace_id: str) -> Trace:
        page = await self.list_spans(trace_id)
        root = next((span for span in page.data if span.parent_span_id is None), page.data[0])
        ends = [span.end_time for span in page.data if span.end_time is not None]
        return Trace(trace_id=trace_id, root_span_id=root.span_id, start_time=root.start_time, end_time=max(ends))

    async def list_spans(self, trace_id: str, limit: int | None = None, after: str | None = None) -> Page[WireSpan]:
        found = await self._do(lambda: self._opened.spans_of(trace_id, limit or 1000))
        if not found:
            raise NotFoundError(f"no trace '{trace_id}' is known", param="trace_id")
        return Page(data=[span.to_wire() for span in found])

    async def list_traces(
        self,
        since: datetime | None = None,
        status: SpanStatus | None = None,
        name: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[TraceSummary]:
        summaries = []
        for trace_id in await self._do(lambda: self._opened.traces(limit or 20)):
            spans = await self._do(partial(self._opened.spans_of, trace_id, 1000))
            errors = sum(span.status == "error" for span in spans)
            summaries.append(
                TraceSummary(
                    trace_id=trace_id,
                    root_span_id=spans[0].span_id,
                    start_time=moment(spans[0].start_ns),
                    end_time=moment(max(span.end_ns for span in spans)),
                    name=spans[0].name,
                    status=SpanStatus.error if errors else SpanStatus.ok,
                    spans=len(spans),
                    errors=errors,
                )
            )
        return Page(data=summaries)

    @property
    def _opened(self) -> TraceStore:
        if self._store is None:
            raise RuntimeError("the provider is not initialized")
        return self._store

    async def _do(self, work: Callable[[], _T]) -> _T:
        return await anyio.to_thread.run_sync(work, limiter=self._one)


async def get_provider_impl(config: TelemetryConfig, deps: Deps) -> MetaReferenceTelemetry:
    return MetaReferenceTelemetry(config, deps)
