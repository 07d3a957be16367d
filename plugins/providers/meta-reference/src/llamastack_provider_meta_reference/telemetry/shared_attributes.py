"""Attributes that all spans of a kind have: they are in the file once, and each span has their number.

Each row says in `last_trace` until when it was used, to within `SLACK` traces. So it can be removed with the traces
that use it, and no index of spans is needed.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from llamastack_provider_meta_reference.telemetry.parts import as_json
from llamastack_telemetry import Attributes

SLACK = 10_000
"""Traces after which a connection writes again that it uses a row."""
MOST_ROWS = 1000
"""Rows of the table. Spans of further kinds have all their attributes themselves."""
MOST_BYTES = 128 * 1024
"""Of the texts of all rows. With their index they take a third of the smallest file, so there is room for traces."""
_FIND = "SELECT id FROM shared_attributes WHERE attributes = ?"
_PUT = "INSERT INTO shared_attributes (attributes, last_trace) VALUES (?, ?)"
_USE = "UPDATE shared_attributes SET last_trace = max(last_trace, ?) WHERE id = ?"
_SIZE = "SELECT count(*), coalesce(sum(length(CAST(attributes AS BLOB))), 0) FROM shared_attributes"


class _Known(NamedTuple):
    """attributes: kept, so that no other mapping gets the same identity. number: None if there was no room."""

    attributes: Attributes
    number: int | None
    trace: int


class SharedAttributes:
    """The numbers of attributes that this connection has used.

    perf: llamastack-v1-sqlite. Rows of spans are half as long, and most attributes are encoded once.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[int, _Known] = {}

    def number_of(self, attributes: Attributes, trace: int) -> int | None:
        """The number of the row, which is written in the transaction if it is new; None if there is none.

        trace: the number of the trace whose span has the attributes. Raises ValueError for a text that is not Unicode.
        """
        known = self._known.get(id(attributes))
        # A row is not removed as long as it was used within the last `SLACK` traces; see `Tidying`.
        if known is not None and trace - known.trace < SLACK:
            return known.number
        number = self._used(as_json(attributes), trace) if attributes else None
        if len(self._known) >= MOST_ROWS:
            self._known.clear()
        self._known[id(attributes)] = _Known(attributes, number, trace)
        return number

    def _used(self, text: str, trace: int) -> int | None:
        row = self._connection.execute(_FIND, (text,)).fetchone()
        if row is None and self._has_room(text):
            return self._connection.execute(_PUT, (text, trace)).lastrowid
        if row is not None:
            self._connection.execute(_USE, (trace, row[0]))
        return None if row is None else int(row[0])

    def _has_room(self, text: str) -> bool:
        rows, size = self._connection.execute(_SIZE).fetchone()
        return bool(rows < MOST_ROWS and size + len(text.encode()) <= MOST_BYTES)

    def forget(self) -> None:
        """Look numbers up again: a transaction was undone."""
        self._known.clear()
