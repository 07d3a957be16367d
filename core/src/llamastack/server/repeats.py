"""Lines of a log that say the same again and again: the first few are written, the others are counted and told of."""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

# What differs between lines of one kind: numbers, ids, times, addresses.
_VARYING = re.compile(r"[0-9A-Fa-f]{4,}(?:-[0-9A-Fa-f]{2,})+|[^\W\d]*\d\w*")
_COMPARED = 300  # characters


@dataclass(frozen=True, slots=True)
class Held:
    """Lines of one kind that were not written: how many, and what the last of them was."""

    number: int
    level: str
    logger: str
    request: str
    text: str


@dataclass(slots=True)
class _Kind:
    until: float
    written: int = 0
    held: Held | None = None


class Repeats:
    """Decides which records are written.

    Lines are of one kind when they differ in numbers and ids alone. most: lines of one kind within `window_s` seconds;
    0 writes all. most_of_a_place: lines of all kinds that one place in the code writes within that time. most_kinds:
    that are told apart at a time; further ones count by their place alone.
    """

    def __init__(
        self, most: int = 5, *, most_of_a_place: int = 50, window_s: float = 10.0, most_kinds: int = 1000
    ) -> None:
        self.window_s = window_s
        self._most = most
        self._most_of_a_place = most_of_a_place
        self._most_kinds = most_kinds
        self._kinds: dict[Hashable, _Kind] = {}

    def admits(self, record: logging.LogRecord, text: str, request: str, now: float) -> bool:
        """Whether a record is to be written; else it is counted.

        text: its message. request: the id of its request. now: in seconds, of any clock that only goes forward.
        """
        if not self._most:
            return True
        if len(self._kinds) >= self._most_kinds:
            self._forget(now)
        by_place = self._kind((record.levelno, record.pathname, record.lineno), now)
        failure = record.exc_info[0] if record.exc_info else None
        key = (record.name, record.levelno, _VARYING.sub("#", text[:_COMPARED]), failure)
        by_text = self._kind(key, now) if key in self._kinds or len(self._kinds) < self._most_kinds else None
        full = next(
            (kind for kind, most in ((by_text, self._most), (by_place, self._most_of_a_place)) if _is_full(kind, most)),
            None,
        )
        if full is None:
            by_place.written += 1
            if by_text is not None:
                by_text.written += 1
            return True
        number = full.held.number if full.held is not None else 0
        full.held = Held(number + 1, record.levelname, record.name, request, text[:_COMPARED])
        return False

    def _kind(self, key: Hashable, now: float) -> _Kind:
        found = self._kinds.get(key)
        if found is None or (found.until <= now and found.held is None):
            found = self._kinds[key] = _Kind(now + self.window_s)
        return found

    def _forget(self, now: float) -> None:
        for key, kind in list(self._kinds.items()):
            if kind.until <= now and kind.held is None:
                del self._kinds[key]

    def over(self, now: float | None = None) -> Iterator[Held]:
        """What was held back by those whose time is over at `now`, or by all; they begin anew."""
        for key, kind in list(self._kinds.items()):
            if kind.held is not None and (now is None or kind.until <= now):
                del self._kinds[key]
                yield kind.held

    def next_over(self) -> float | None:
        """When there is next something to tell of; None where nothing is held back."""
        return min((kind.until for kind in list(self._kinds.values()) if kind.held is not None), default=None)


def _is_full(kind: _Kind | None, most: int) -> bool:
    return kind is not None and kind.written >= most
