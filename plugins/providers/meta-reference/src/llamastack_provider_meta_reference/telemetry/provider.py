"""The provider: events and spans go to its sinks, and traces are read from the SQLite file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio.to_thread

from llamastack.api.pagination import Page
from llamastack.api.telemetry import Event, SpanStatus, Telemetry, Trace, TraceSummary
from llamastack.api.telemetry import Span as WireSpan
from llamastack.provider import Deps, InvalidRequestError, NotFoundError, NotSupportedError
from llamastack.provider.control_characters import one_line
from llamastack_provider_meta_reference.telemetry.config import TelemetryConfig
from llamastack_provider_meta_reference.telemetry.console import ConsoleSink, Json, Trees
from llamastack_provider_meta_reference.telemetry.console_output import ConsoleOutput
from llamastack_provider_meta_reference.telemetry.cursors import read_span_cursor, read_trace_cursor, write_cursor
from llamastack_provider_meta_reference.telemetry.parts import LATEST_NS, Part, part_of_event
from llamastack_provider_meta_reference.telemetry.retention import Limits
from llamastack_provider_meta_reference.telemetry.sqlite_sink import SqliteSink
from llamastack_provider_meta_reference.telemetry.trace_store import Position, SpanPosition, TraceFilter
from llamastack_provider_meta_reference.telemetry.wire import span_to_wire, summary_of, trace_to_wire
from llamastack_telemetry import FinishedSpan

_PAGE = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_ID = 256


class MetaReferenceTelemetry(Telemetry):
    """Hands what happens to its sinks. Traces are read from the file, if that is one of them."""

    def __init__(self, config: TelemetryConfig, deps: Deps) -> None:
        self._config = config
        self._deps = deps
        self._kept: SqliteSink | None = None
        self._consoles: list[ConsoleSink] = []

    @property
    def note(self) -> str | None:
        """Why no traces can be written, as far as the last write showed it."""
        return None if self._kept is None else self._kept.note

    async def initialize(self) -> None:
        """Raises OSError if the file, or stdout, cannot be used."""
        config = self._config
        styles: dict[str, type[Trees | Json]] = {"console": Trees, "console-json": Json}
        self._consoles = [ConsoleSink(styles[name](), ConsoleOutput()) for name in config.sinks if name in styles]
        if "sqlite" in config.sinks:
            path = await anyio.to_thread.run_sync(self._path)
            limits = Limits(config.keep_for_s, config.max_bytes)
            kept = SqliteSink(path, own_folder=config.path is None, limits=limits)
            await kept.open()
            self._kept = kept
            self._deps.task_group.start_soon(kept.tidy, name="traces are removed when they are old")

    def _path(self) -> Path:
        """The file. It makes the folder of this instance, which blocks."""
        return self._config.path.expanduser() if self._config.path else self._deps.state_dir / "traces.sqlite"

    async def shutdown(self) -> None:
        for console in self._consoles:
            await console.close()
        if self._kept is not None:
            await self._kept.close()

    async def export_spans(self, spans: Sequence[FinishedSpan]) -> None:
        """Raises ProviderUnavailableError if the file cannot be used now: the spans come again, and nobody has them."""
        if self._kept is not None:
            await self._kept.add_spans(spans)
        for console in self._consoles:
            await console.add_spans(spans)

    async def log_event(self, event: Event) -> None:
        part = self._checked(event)
        if self._kept is not None:
            await self._kept.add_part(part)
        for console in self._consoles:
            await console.add_event(event)

    @property
    def _readable(self) -> SqliteSink:
        if self._kept is None:
            sinks = ", ".join(self._config.sinks)
            raise NotSupportedError(
                f"traces cannot be read from {sinks}: name 'sqlite' in the config 'sinks' of the telemetry provider too"
            )
        return self._kept

    def _checked(self, event: Event) -> Part:
        at_ns = _nanoseconds(event.timestamp, "event.timestamp")
        for field, text in (("trace_id", event.trace_id), ("span_id", event.span_id)):
            if not 0 < len(text) <= _LONGEST_ID:
                message = f"{field}: has {len(text)} characters; an id has 1 to {_LONGEST_ID}"
                raise InvalidRequestError(message, param=f"event.{field}")
        try:
            size = len(event.model_dump_json())
        except ValueError as error:
            raise InvalidRequestError(f"event: cannot be kept as JSON: {error}", param="event") from None
        if size > self._config.max_event_bytes:
            raise InvalidRequestError(
                f"event: it has {size} bytes as JSON, and at most {self._config.max_event_bytes} are kept of an event; "
                "the config 'max_event_bytes' of the telemetry provider sets that",
                param="event",
            )
        return part_of_event(event, at_ns)

    async def get_trace(self, trace_id: str) -> Trace:
        trace = await self._readable.read(lambda store: store.trace(trace_id))
        if trace is None:
            raise _unknown(trace_id)
        return trace_to_wire(trace)

    async def list_traces(
        self,
        since: datetime | None = None,
        status: SpanStatus | None = None,
        name: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[TraceSummary]:
        failed = None if status is None else status == SpanStatus.error
        since_ns = None if since is None else _nanoseconds(since, "since")
        wanted = TraceFilter(since_ns=since_ns, failed=failed, name=name)
        position = read_trace_cursor(after)
        traces, more = await self._readable.read(lambda store: store.traces(wanted, position, limit or _PAGE))
        last = write_cursor(Position(traces[-1].start_ns, traces[-1].id)) if traces else None
        return Page(data=[summary_of(trace) for trace in traces], has_more=more, last_id=last)

    async def list_spans(self, trace_id: str, limit: int | None = None, after: str | None = None) -> Page[WireSpan]:
        position = read_span_cursor(after)
        found = await self._readable.read(lambda store: store.spans(trace_id, position, limit or _PAGE))
        if found is None:
            raise _unknown(trace_id)
        spans, more = found
        last = write_cursor(SpanPosition(spans[-1][0].start_ns, spans[-1][0].span_id)) if spans else None
        data = [span_to_wire(trace_id, span, events) for span, events in spans]
        return Page(data=data, has_more=more, last_id=last)


def _nanoseconds(moment: datetime, param: str) -> int:
    """Since 1970. Raises InvalidRequestError for what the file cannot have: before 1970, or after 2262."""
    nanoseconds = (moment - _EPOCH) // timedelta(microseconds=1) * 1000
    if not 0 <= nanoseconds <= LATEST_NS:
        raise InvalidRequestError(f"{param}: {moment.isoformat()} is not between 1970 and 2262", param=param)
    return nanoseconds


def _unknown(trace_id: str) -> NotFoundError:
    return NotFoundError(f"no trace '{one_line(trace_id)[:_LONGEST_ID]}' is known", param="trace_id")


async def get_provider_impl(config: TelemetryConfig, deps: Deps) -> MetaReferenceTelemetry:
    return MetaReferenceTelemetry(config, deps)
