"""Old traces are removed, in small steps, and the file gets smaller."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass

from llamastack_provider_meta_reference.telemetry.schema import transaction
from llamastack_provider_meta_reference.telemetry.shared_attributes import SLACK

CHECK_EVERY_S = 60.0
"""How often some process looks whether there is something to remove."""
_ROWS_A_STEP = 1000
_PAGES_A_STEP = 256
_FILL, _FILL_AFTER = 0.9, 0.85
"""Shares of the largest size: above the first, traces are removed until what is used is below the second."""
_SPARE_SHARE, _LEAST_SPARE = 10, 64
"""A tenth of the pages, and 256 KiB, may be empty: new traces use them. More are given back."""
_LEAST_TRACE = "(SELECT coalesce(min(id), (SELECT next_id FROM upkeep)) FROM traces)"
_LEASE_S = 10.0
"""After which another process goes on, where one that tidied up has died."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long traces are kept, in seconds, and how large the file may be, in bytes."""

    keep_for_s: float
    max_bytes: int


class Tidying:
    """Removes whole traces that are too old, and the oldest while the file is too large. Its methods block.

    The oldest are those that arrived first. A trace is out of sight at once; its spans are then removed some at a time.
    """

    def __init__(self, connection: sqlite3.Connection, limits: Limits) -> None:
        self._connection = connection
        self._limits = limits
        self._shrinking = False

    def is_too_large(self) -> bool:
        """Whether traces must be removed now; costs a few microseconds."""
        return self._used() > self._limits.max_bytes * _FILL

    def claim(self, *, now: bool) -> bool:
        """Whether this process is to tidy up. One process does it at a time, once in `CHECK_EVERY_S`.

        now: whether it cannot wait for its time.
        """
        moment = time.time()
        with transaction(self._connection):
            due, busy_until = self._connection.execute("SELECT tidy_at, tidying_until FROM upkeep").fetchone()
            if _is_ahead(busy_until, moment, _LEASE_S) or (_is_ahead(due, moment, CHECK_EVERY_S) and not now):
                return False
            values = (moment + CHECK_EVERY_S, moment + _LEASE_S)
            self._connection.execute("UPDATE upkeep SET tidy_at = ?, tidying_until = ?", values)
        return True

    def step(self) -> bool:
        """Remove a little. Returns whether there is more to remove."""
        with transaction(self._connection):
            # What is out of sight goes first: what is used says then whether more traces must go.
            removed = self._remove_rows("spans", "trace, span_id") + self._remove_rows("events", "rowid")
            removed = removed or self._remove_shared() or self._forget_traces()
            more = removed > 0 or self._empty_pages() > 0
            self._connection.execute("UPDATE upkeep SET tidying_until = ?", (time.time() + _LEASE_S if more else 0,))
        if self._empty_pages() > 0:
            # `execute` would end after the first page: the pragma has a row for each page, and no columns.
            self._connection.executescript(f"PRAGMA incremental_vacuum({_PAGES_A_STEP})")
        return more

    def _forget_traces(self) -> int:
        """Put the oldest traces out of sight, with about as many spans as one step removes."""
        self._shrinking = self._used() > self._limits.max_bytes * (_FILL_AFTER if self._shrinking else _FILL)
        before = time.time() - self._limits.keep_for_s
        oldest = self._connection.execute(f"SELECT id, seen_s, spans FROM traces ORDER BY id LIMIT {_ROWS_A_STEP}")
        last = -1
        spans = 0
        for number, seen_s, own in oldest:
            if spans >= _ROWS_A_STEP or not (self._shrinking or seen_s < before):
                break
            last, spans = number, spans + own
        return self._connection.execute("DELETE FROM traces WHERE id <= ?", (last,)).rowcount

    def _remove_rows(self, table: str, key: str) -> int:
        """Remove rows of traces that are gone: those whose number is below that of every trace that is there."""
        some = f"SELECT {key} FROM {table} WHERE trace < {_LEAST_TRACE} LIMIT {_ROWS_A_STEP}"
        return self._connection.execute(f"DELETE FROM {table} WHERE ({key}) IN ({some})").rowcount

    def _remove_shared(self) -> int:
        """Remove shared attributes that only traces used that are gone."""
        # A span may use a row for `SLACK` traces after the number in it, and a connection knows the row as long.
        some = f"SELECT id FROM shared_attributes WHERE last_trace < {_LEAST_TRACE} - {2 * SLACK} LIMIT {_ROWS_A_STEP}"
        return self._connection.execute(f"DELETE FROM shared_attributes WHERE id IN ({some})").rowcount

    def _empty_pages(self) -> int:
        """How many pages are to be given back."""
        spare = max(self._pragma("page_count") // _SPARE_SHARE, _LEAST_SPARE)
        return self._pragma("freelist_count") - spare

    def _used(self) -> int:
        pages = self._pragma("page_count") - self._pragma("freelist_count")
        return pages * self._pragma("page_size")

    def _pragma(self, name: str) -> int:
        value: int = self._connection.execute(f"PRAGMA {name}").fetchone()[0]
        return value


def _is_ahead(moment: float, now: float, most_s: float) -> bool:
    """Whether a time has not come. What is further ahead than it can be was written before the clock was set back."""
    return now < moment <= now + most_s
