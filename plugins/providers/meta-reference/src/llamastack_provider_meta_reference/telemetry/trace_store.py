"""Traces in a SQLite file that several processes share."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from llamastack_telemetry import FinishedSpan

_SCHEMA = """
CREATE TABLE IF NOT EXISTS spans (
  trace_id TEXT NOT NULL, span_id TEXT NOT NULL, parent_id TEXT, name TEXT NOT NULL, kind TEXT NOT NULL,
  start_ns INTEGER NOT NULL, end_ns INTEGER, status TEXT NOT NULL, message TEXT NOT NULL,
  attributes TEXT NOT NULL, events TEXT,
  PRIMARY KEY (trace_id, span_id)
) WITHOUT ROWID;
"""
_INSERT = "INSERT OR REPLACE INTO spans VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class TraceStore:
    """One connection to the file, for one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(_SCHEMA)

    def add(self, spans: Sequence[FinishedSpan]) -> None:
        """Keep spans, in one transaction."""
        rows = [_row(span) for span in spans]
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._connection.executemany(_INSERT, rows)
            self._connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    def spans_of(self, trace_id: str, limit: int) -> list[FinishedSpan]:
        """The spans of a trace, in the order in which they began."""
        found = self._connection.execute(
            "SELECT * FROM spans WHERE trace_id = ? ORDER BY start_ns LIMIT ?", (trace_id, limit)
        )
        return [_span(row) for row in found]

    def traces(self, limit: int) -> list[str]:
        """The newest traces."""
        found = self._connection.execute(
            "SELECT trace_id FROM spans GROUP BY trace_id ORDER BY min(start_ns) DESC LIMIT ?", (limit,)
        )
        return [row[0] for row in found]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _row(span: FinishedSpan) -> tuple[object, ...]:
    return (
        span.trace_id,
        span.span_id,
        span.parent_id,
        span.name,
        span.kind,
        span.start_ns,
        span.end_ns,
        span.status,
        span.message,
        json.dumps(span.attributes),
        None,
    )


def _span(row: tuple[Any, ...]) -> FinishedSpan:
    trace_id, span_id, parent_id, name, kind, start_ns, end_ns, status, message, attributes, _ = row
    return FinishedSpan(
        trace_id, span_id, parent_id, name, kind, start_ns, end_ns, status, message, json.loads(attributes)
    )
