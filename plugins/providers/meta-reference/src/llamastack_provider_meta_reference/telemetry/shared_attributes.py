"""Attributes that all spans of a kind have: they are in the file once, and each span has their number."""

from __future__ import annotations

import sqlite3

from llamastack_provider_meta_reference.telemetry.parts import as_json
from llamastack_telemetry import Attributes

_MOST_KNOWN = 1000
_PUT = "INSERT OR IGNORE INTO shared_attributes (attributes) VALUES (?)"
_FIND = "SELECT id FROM shared_attributes WHERE attributes = ?"


class SharedAttributes:
    """The numbers of attributes that this connection has written. Their rows stay: there is one for each kind of span.

    perf: llamastack-v1-sqlite. Rows of spans are half as long, and most attributes are encoded once.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        # By the identity of the mapping, which is kept, so that no other one gets the same.
        self._known: dict[int, tuple[Attributes, int]] = {}

    def number_of(self, attributes: Attributes) -> int | None:
        """The number of the row, which is written in the transaction if it is new; None if there are no attributes.

        Raises ValueError for a text that is not Unicode.
        """
        known = self._known.get(id(attributes))
        if known is not None:
            return known[1]
        if not attributes:
            return None
        text = as_json(attributes)
        self._connection.execute(_PUT, (text,))
        number: int = self._connection.execute(_FIND, (text,)).fetchone()[0]
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[id(attributes)] = (attributes, number)
        return number

    def forget(self) -> None:
        """Look numbers up again: a transaction was undone."""
        self._known.clear()
