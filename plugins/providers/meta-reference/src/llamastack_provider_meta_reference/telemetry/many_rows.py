"""Writes many rows with few statements.

# perf: llamastack-v1-sqlite. `executemany` lets other threads run before each row, and then waits for its turn: beside
a busy event loop that takes several times as long as the rows themselves.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain

_SIZES = (64, 8, 1)
"""Rows of a statement. 64 rows have fewer values than the 999 that every SQLite takes."""


def write_rows(connection: sqlite3.Connection, statement: str, rows: Sequence[Sequence[object]]) -> int:
    """Run a statement with all rows. Returns how many were written.

    statement: has `%s` in place of the rows. rows: all of the same length, at most 15.
    """
    written = at = 0
    for size in _SIZES:
        while len(rows) - at >= size:
            some = rows[at : at + size]
            values = ", ".join([f"({', '.join('?' * len(some[0]))})"] * size)
            written += connection.execute(statement % values, tuple(chain.from_iterable(some))).rowcount
            at += size
    return written
