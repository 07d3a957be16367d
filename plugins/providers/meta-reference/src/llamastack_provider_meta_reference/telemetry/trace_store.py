"""Traces in a SQLite file that several processes share: writing and reading them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pydantic_core

from llamastack_provider_meta_reference.telemetry.many_rows import write_rows
from llamastack_provider_meta_reference.telemetry.parts import (
    KeptSpan,
    KeptTrace,
    Part,
    Root,
    as_json,
    part_of_span,
    without_surrogates,
)
from llamastack_provider_meta_reference.telemetry.schema import transaction
from llamastack_provider_meta_reference.telemetry.shared_attributes import SharedAttributes
from llamastack_telemetry import FinishedSpan

MOST_EVENTS = 1000
"""Events of one span that are kept; further ones are refused."""
_LARGEST_PAGE = 4 * 1024 * 1024
"""Bytes of JSON after which a page of spans ends, even if it has fewer than were asked for."""

_TRACE_COLUMNS = (
    "id, trace_id, seen_s, start_ns, end_ns, root_rank, root_start_ns, root_span_id, name, spans, errors, "
    "input_tokens, output_tokens, costs"
)
# The status of the root is in its span alone, so that nobody who writes keeps it up to date.
_ROOT_STATUS = "(SELECT status FROM spans WHERE trace = traces.id AND span_id = traces.root_span_id)"
_READ_COLUMNS = f"{_TRACE_COLUMNS}, coalesce({_ROOT_STATUS}, 'unset')"
_KNOWN = f"SELECT {_TRACE_COLUMNS} FROM traces WHERE trace_id IN (SELECT value FROM json_each(?))"
_PUT_TRACE = f"""
INSERT INTO traces ({_TRACE_COLUMNS}) VALUES %s
ON CONFLICT (id) DO UPDATE SET start_ns = excluded.start_ns, end_ns = excluded.end_ns, root_rank = excluded.root_rank,
root_start_ns = excluded.root_start_ns, root_span_id = excluded.root_span_id, name = excluded.name,
spans = excluded.spans, errors = excluded.errors, input_tokens = excluded.input_tokens,
output_tokens = excluded.output_tokens, costs = excluded.costs
"""
_SPAN_COLUMNS = "trace, span_id, parent_id, name, kind, start_ns, end_ns, status, message, attributes, shared"
_SPAN_VALUES = f"INTO spans ({_SPAN_COLUMNS}) VALUES %s"
_INSERT_SPAN = f"INSERT OR IGNORE {_SPAN_VALUES}"
_PUT_SPAN = f"INSERT OR REPLACE {_SPAN_VALUES}"
_PUT_EVENT = "INSERT INTO events (trace, span_id, time_ns, name, attributes) VALUES (?, ?, ?, ?, ?)"
_COUNT_EVENTS = "SELECT count(*) FROM events WHERE trace = ? AND span_id = ?"
_SPAN_WITH_ALL = f"""
SELECT {_SPAN_COLUMNS.replace("attributes", "spans.attributes")}, shared_attributes.attributes
FROM spans LEFT JOIN shared_attributes ON shared_attributes.id = shared
"""
_SPANS = f"""
{_SPAN_WITH_ALL} WHERE trace = ? AND (start_ns, span_id) > (?, ?) ORDER BY start_ns, span_id LIMIT ?
"""
_EVENTS = """
SELECT time_ns, name, attributes FROM events WHERE trace = ? AND span_id = ? ORDER BY time_ns, rowid LIMIT ?
"""


class Position(NamedTuple):
    """Where a page of traces ends."""

    start_ns: int
    id: int


class SpanPosition(NamedTuple):
    """Where a page of spans ends."""

    start_ns: int
    span_id: str


class KeptEvent(NamedTuple):
    """What happened in a span."""

    time_ns: int
    name: str
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TraceFilter:
    """Which traces are wanted; None stands for every one.

    failed: whether a span failed; False: none did, and the root is `ok`.
    """

    since_ns: int | None = None
    failed: bool | None = None
    name: str | None = None


class TraceStore:
    """One connection to the file, for one thread at a time. Its methods block.

    Every method raises sqlite3.Error where the file cannot be used now; then nothing has been written.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._shared = SharedAttributes(connection)

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    # ---- writing -------------------------------------------------------------------------------------------------

    def add(self, spans: Sequence[FinishedSpan]) -> None:
        """Keep whole spans, in one transaction. A span that is there is not kept twice."""
        try:
            self._add(spans)
        except ValueError:  # a text that is not Unicode
            self._add([without_surrogates(span) for span in spans])

    def _add(self, spans: Sequence[FinishedSpan]) -> None:
        # perf: llamastack-v1-sqlite. The whole transaction is undone: a savepoint would copy each page that changes.
        try:
            with transaction(self.connection):
                self._put_spans(spans)
        except BaseException as error:
            self._shared.forget()
            if not isinstance(error, _AlreadyThereError):
                raise
            self.merge([part_of_span(span) for span in spans])

    def _put_spans(self, spans: Sequence[FinishedSpan]) -> None:
        written = _Traces(self.connection, (span.trace_id for span in spans))
        number_of = self._shared.number_of
        rows = []
        for span in spans:
            trace = written.of(span)
            rows.append(_row(trace, span, number_of(span.shared_attributes, trace.id)))
        if write_rows(self.connection, _INSERT_SPAN, rows) != len(rows):
            raise _AlreadyThereError
        self._put_events(written, spans)
        written.save()

    def _put_events(self, written: _Traces, spans: Sequence[FinishedSpan]) -> None:
        rows = [
            (written.kept[span.trace_id].id, span.span_id, event.time_ns, event.name, as_json(event.attributes))
            for span in spans
            if span.events
            for event in span.events[:MOST_EVENTS]
        ]
        if rows:
            self.connection.executemany(_PUT_EVENT, rows)

    def merge(self, parts: Sequence[Part]) -> list[bool]:
        """Keep parts of spans, in one transaction. Returns for each whether there was room for it in its span."""
        with transaction(self.connection):
            return self._merge(parts)

    def _merge(self, parts: Sequence[Part]) -> list[bool]:
        written = _Traces(self.connection, (part.trace_id for part in parts))
        spans: dict[tuple[str, str], KeptSpan] = {}
        taken = [self._merge_one(written, spans, part) for part in parts]
        rows = [_kept_row(span) for span in spans.values()]
        write_rows(self.connection, _PUT_SPAN, rows)
        written.save()
        return taken

    def _merge_one(self, written: _Traces, spans: dict[tuple[str, str], KeptSpan], part: Part) -> bool:
        trace = written.begun(part)
        key = (part.trace_id, part.span_id)
        span = spans.get(key) or self._kept_span(trace.id, part.span_id)
        if part.events and span is not None and part.name is None and part.end_ns is None:
            there: int = self.connection.execute(_COUNT_EVENTS, (trace.id, part.span_id)).fetchone()[0]
            if there >= MOST_EVENTS:
                return False
        if span is None:
            span = KeptSpan(trace.id, part.span_id, None, None, part.kind, part.start_ns, None, "unset", None, {})
            trace.add_span_in_parts()
        spans[key] = span
        before, status = span.attributes, span.status
        if not span.add(part):
            return True
        if span.attributes is not before or span.status != status:
            trace.count(before, status, -1)
            trace.count(span.attributes, span.status)
        trace.extend(span.root, span.name, part.start_ns, span.end_ns)
        rows = [(trace.id, span.span_id, each.time_ns, each.name, as_json(each.attributes)) for each in part.events]
        self.connection.executemany(_PUT_EVENT, rows[:MOST_EVENTS])
        return True

    def _kept_span(self, trace: int, span_id: str) -> KeptSpan | None:
        found = self.connection.execute(f"{_SPAN_WITH_ALL} WHERE trace = ? AND span_id = ?", (trace, span_id))
        row = found.fetchone()
        return None if row is None else _kept_span(row)

    # ---- reading -------------------------------------------------------------------------------------------------

    def trace(self, trace_id: str) -> KeptTrace | None:
        """A trace by its id; None if it is not there."""
        found = self.connection.execute(f"SELECT {_READ_COLUMNS} FROM traces WHERE trace_id = ?", (trace_id,))
        row = found.fetchone()
        return None if row is None else _kept_trace(row)

    def traces(self, wanted: TraceFilter, after: Position | None, limit: int) -> tuple[list[KeptTrace], bool]:
        """At most `limit` traces, the newest first, and whether there are more."""
        terms: list[str] = []
        values: list[object] = []
        if after is not None:
            terms.append("(start_ns, id) < (?, ?)")
            values += after
        if wanted.since_ns is not None:
            terms.append("start_ns >= ?")
            values.append(wanted.since_ns)
        if wanted.failed is not None:
            terms.append("errors > 0" if wanted.failed else f"errors = 0 AND {_ROOT_STATUS} = 'ok'")
        if wanted.name is not None:
            terms.append("instr(name, ?) > 0")
            values.append(wanted.name)
        where = f"WHERE {' AND '.join(terms)} " if terms else ""
        query = f"SELECT {_READ_COLUMNS} FROM traces {where}ORDER BY start_ns DESC, id DESC LIMIT ?"
        found = [_kept_trace(row) for row in self.connection.execute(query, (*values, limit + 1))]
        return found[:limit], len(found) > limit

    def spans(
        self, trace_id: str, after: SpanPosition | None, limit: int
    ) -> tuple[list[tuple[KeptSpan, list[KeptEvent]]], bool] | None:
        """At most `limit` spans in the order of their start, with their events, and whether there are more.

        Returns None if the trace is not there.
        """
        with transaction(self.connection, "BEGIN"):
            trace = self.trace(trace_id)
            if trace is None:
                return None
            start_ns, span_id = after or (-(2**63), "")
            found: list[tuple[KeptSpan, list[KeptEvent]]] = []
            size = 0
            for row in self.connection.execute(_SPANS, (trace.id, start_ns, span_id, limit + 1)):
                if len(found) == limit or size > _LARGEST_PAGE:
                    return found, True
                events = self.connection.execute(_EVENTS, (trace.id, row[1], MOST_EVENTS)).fetchall()
                size += len(row[9]) + len(row[-1] or "") + sum(len(event[-1]) for event in events)
                found.append((_kept_span(row), [_event(event) for event in events]))
            return found, False


class _AlreadyThereError(Exception):
    """Some spans are there, in whole or in part: all are put together with what is there, one by one."""


class _Traces:
    """The traces that a transaction writes to, with what is known of them."""

    def __init__(self, connection: sqlite3.Connection, trace_ids: Iterable[str]) -> None:
        self._connection = connection
        ids = pydantic_core.to_json(list(dict.fromkeys(trace_ids)))
        self.kept = {row[1]: _kept_trace(row) for row in connection.execute(_KNOWN, (ids.decode(),))}
        self._next_id: int = connection.execute("SELECT next_id FROM upkeep").fetchone()[0]
        self._now = int(time.time())

    def of(self, span: FinishedSpan) -> KeptTrace:
        """The trace of a span that is new, with the span in it."""
        root = Root(0 if span.parent_id is None else 1, span.start_ns, span.span_id)
        trace = self.kept.get(span.trace_id)
        if trace is None:
            trace = self._new(span.trace_id, span.start_ns, root)
        trace.add_span(root, span)
        return trace

    def begun(self, part: Part) -> KeptTrace:
        """The trace of a part, without the part in it."""
        trace = self.kept.get(part.trace_id)
        return trace or self._new(part.trace_id, part.start_ns, Root(3, part.start_ns, part.span_id))

    def _new(self, trace_id: str, start_ns: int, root: Root) -> KeptTrace:
        trace = KeptTrace(self._next_id, trace_id, self._now, start_ns, None, root, None)
        self._next_id += 1
        self.kept[trace_id] = trace
        return trace

    def save(self) -> None:
        """Write them."""
        write_rows(self._connection, _PUT_TRACE, [trace.row() for trace in self.kept.values()])
        self._connection.execute("UPDATE upkeep SET next_id = ?", (self._next_id,))


def _row(trace: KeptTrace, span: FinishedSpan, shared: int | None) -> tuple[object, ...]:
    return (
        trace.id,
        span.span_id,
        span.parent_id,
        span.name,
        span.kind,
        span.start_ns,
        span.end_ns,
        span.status,
        span.message or None,
        as_json(span.attributes if shared is None else span.own_attributes),
        shared,
    )


def _kept_row(span: KeptSpan) -> tuple[object, ...]:
    return (
        span.trace,
        span.span_id,
        span.parent_id,
        span.name,
        span.kind,
        span.start_ns,
        span.end_ns,
        span.status,
        span.message,
        as_json(span.attributes),
        None,
    )


def _kept_span(row: tuple[Any, ...]) -> KeptSpan:
    trace, span_id, parent_id, name, kind, start_ns, end_ns, status, message, attributes, _, shared = row
    known: dict[str, Any] = pydantic_core.from_json(attributes)
    if shared is not None:
        known = {**pydantic_core.from_json(shared), **known}
    return KeptSpan(trace, span_id, parent_id, name, kind, start_ns, end_ns, status, message, known)


def _kept_trace(row: tuple[Any, ...]) -> KeptTrace:
    number, trace_id, seen_s, start_ns, end_ns, rank, root_start_ns, root_id, *rest = row
    return KeptTrace(number, trace_id, seen_s, start_ns, end_ns, Root(rank, root_start_ns, root_id), *rest)


def _event(row: tuple[Any, ...]) -> KeptEvent:
    attributes: Mapping[str, Any] = pydantic_core.from_json(row[2])
    return KeptEvent(row[0], row[1], dict(attributes))
