"""Spans on the console: a small tree for each trace, for people, or a JSON object for each span."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

import anyio.to_thread
from anyio import CapacityLimiter

from llamastack.api.telemetry import Event, MetricEvent, SpanStartPayload, UnstructuredLogEvent
from llamastack.provider.control_characters import one_line
from llamastack_provider_meta_reference.telemetry.console_output import ConsoleOutput
from llamastack_provider_meta_reference.telemetry.parts import NOT_STARTED
from llamastack_telemetry import FinishedSpan
from llamastack_telemetry import conventions as names

_MOST_TRACES = 1000
_MOST_SPANS = 100
_LONGEST_WAIT_S = 10.0
"""After which a trace whose root has not come is drawn without it: it may be in another process."""
_LONGEST_TEXT = 200
_LONGEST_LINE = 1000
_DEEPEST = 10
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Style(Protocol):
    """How spans and events become lines."""

    def of_spans(self, spans: Sequence[FinishedSpan]) -> list[str]:
        """The lines that can be written now."""

    def of_event(self, event: Event) -> str:
        """The line of an event of a client."""

    def rest(self) -> list[str]:
        """The lines that wait for spans, which will not come."""


class ConsoleSink:
    """Writes lines to stdout, in a thread."""

    def __init__(self, style: Style, output: ConsoleOutput) -> None:
        self._style = style
        self._output = output
        self._one = CapacityLimiter(1)

    async def add_spans(self, spans: Sequence[FinishedSpan]) -> None:
        await self._write(lambda: self._style.of_spans(spans))

    async def add_event(self, event: Event) -> None:
        await self._write(lambda: [self._style.of_event(event)])

    async def close(self) -> None:
        """Write the lines that wait, and log how many are lost."""
        await self._write(self._style.rest)
        self._output.close()

    async def _write(self, lines: Callable[[], list[str]]) -> None:
        await anyio.to_thread.run_sync(lambda: self._output.write(lines()), limiter=self._one)


# ---- JSON ------------------------------------------------------------------------------------------------------------


class Json:
    """A JSON object for each span, with the fields of `llamastack.api.telemetry.Span`, and one for each event."""

    def of_spans(self, spans: Sequence[FinishedSpan]) -> list[str]:
        return [_json(_object_of(span)) for span in spans]

    def of_event(self, event: Event) -> str:
        return _json(event.model_dump(mode="python") | {"timestamp": event.timestamp.isoformat()})

    def rest(self) -> list[str]:
        return []


def _object_of(span: FinishedSpan) -> dict[str, object]:
    return {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_span_id": span.parent_id,
        "name": span.name,
        "kind": span.kind,
        "start_time": _moment(span.start_ns).isoformat(),
        "end_time": _moment(span.end_ns).isoformat(),
        "status": None if span.status == "unset" else span.status,
        "status_message": span.message or None,
        "attributes": span.attributes,
        "events": [
            {"name": event.name, "timestamp": _moment(event.time_ns).isoformat(), "attributes": event.attributes}
            for event in span.events
        ],
    }


def _json(value: object) -> str:
    """One line of ASCII without control characters, so that nothing in it steers a terminal."""
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), separators=(",", ":"))
    return text.replace("\x7f", "\\u007f")


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list) else value


# ---- trees -----------------------------------------------------------------------------------------------------------


class Trees:
    """A line for each span, indented below its parent, when the root of the trace has come."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}

    def of_spans(self, spans: Sequence[FinishedSpan]) -> list[str]:
        now = time.monotonic()
        lines: list[str] = []
        for span in spans:
            self._waiting.setdefault(span.trace_id, _Waiting(now)).add(span)
            if _is_root(span):
                lines += self._waiting.pop(span.trace_id).lines()
        for trace_id, waiting in list(self._waiting.items()):  # the first has waited longest
            if now - waiting.since <= _LONGEST_WAIT_S and len(self._waiting) <= _MOST_TRACES:
                break
            lines += self._waiting.pop(trace_id).lines()
        return lines

    def of_event(self, event: Event) -> str:
        if isinstance(event, UnstructuredLogEvent):
            said = f"{event.severity.value} {event.message}"
        elif isinstance(event, MetricEvent):
            said = f"{event.metric} {event.value:g} {event.unit}"
        elif isinstance(event.payload, SpanStartPayload):
            said = f"{event.payload.name} begins"
        else:
            said = f"span {event.span_id} ends: {event.payload.status.value}"
        return _line(event.timestamp, 0, said)

    def rest(self) -> list[str]:
        lines = [line for waiting in self._waiting.values() for line in waiting.lines()]
        self._waiting.clear()
        return lines


class _Waiting:
    """Spans of a trace whose root has not come. since: when the first of them came."""

    def __init__(self, since: float) -> None:
        self.since = since
        self._spans: list[FinishedSpan] = []
        self._left_out = 0

    def add(self, span: FinishedSpan) -> None:
        """The root is always kept."""
        if len(self._spans) < _MOST_SPANS or _is_root(span):
            self._spans.append(span)
        else:
            self._left_out += 1

    def lines(self) -> list[str]:
        """A line for each span: time, name, duration, how it ended, tokens, error; children are indented."""
        ids = {span.span_id for span in self._spans}
        children: dict[str | None, list[FinishedSpan]] = {}
        for span in sorted(self._spans, key=lambda span: span.start_ns, reverse=True):
            children.setdefault(span.parent_id if span.parent_id in ids else None, []).append(span)
        lines: list[str] = []
        left = [(span, 0) for span in children.pop(None, ())]
        while left:
            span, depth = left.pop()
            lines.append(_line(_moment(span.start_ns), depth, " ".join(_facts(span))))
            left += [(child, depth + 1) for child in children.pop(span.span_id, ())]
        missing = self._left_out + sum(map(len, children.values()))  # spans that are each other's parents have no root
        return [*lines, f"  and {missing} more spans"] if missing else lines


def _is_root(span: FinishedSpan) -> bool:
    return span.parent_id is None or span.kind == "server"


def _facts(span: FinishedSpan) -> Iterable[str]:
    yield span.name[:_LONGEST_TEXT] or NOT_STARTED
    yield _duration(span.end_ns - span.start_ns)
    yield _end_of(span)
    read, wrote = span.attributes.get(names.INPUT_TOKENS), span.attributes.get(names.OUTPUT_TOKENS)
    if read is not None or wrote is not None:
        yield f"tokens {'?' if read is None else read}+{'?' if wrote is None else wrote}"
    if span.status == "error":
        yield f"{span.attributes.get(names.ERROR_TYPE, 'error')}: {span.message[:_LONGEST_TEXT]}"


def _end_of(span: FinishedSpan) -> str:
    """An HTTP status says more than that neither success nor failure is certain."""
    if span.attributes.get(names.CANCELLED):
        return "cancelled"
    return str(span.attributes.get(names.HTTP_STATUS, "unset")) if span.status == "unset" else span.status


def _duration(ns: int) -> str:
    return f"{ns / 1e9:.2f}s" if ns >= 1e9 else f"{ns / 1e6:.1f}ms"


def _line(at: datetime, depth: int, text: str) -> str:
    shown = one_line(text[:_LONGEST_LINE])
    return f"{at.astimezone(UTC):%H:%M:%S}.{at.microsecond // 1000:03d} {'  ' * min(depth, _DEEPEST)}{shown}"


def _moment(ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=ns // 1000)
