"""Repeated lines of a log: the first few are written, the others are counted, and one line gives their number."""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from llamastack_server.log_ids import RequestIds

# The parts that differ between lines of one kind: numbers, ids, times, addresses.
_VARYING = re.compile(r"[0-9A-Fa-f]{4,}(?:-[0-9A-Fa-f]{2,})+|[^\W\d]*\d\w*")
_COMPARED = 300  # characters


@dataclass(frozen=True, slots=True)
class Held:
    """Lines of one kind that were not written: their number, and the last of them."""

    number: int
    level: str
    logger: str
    request: RequestIds
    text: str


@dataclass(slots=True)
class _Kind:
    until: float
    written: int = 0
    held: Held | None = None

    def write(self) -> None:
        """Count a written line."""
        self.written += 1

    def hold(self, record: logging.LogRecord, request: RequestIds, text: str) -> None:
        """Count a line that is not written."""
        number = self.held.number if self.held is not None else 0
        self.held = Held(number + 1, record.levelname, record.name, request, text)


class Repeats:
    """Decides which records are written.

    most: how often the same line is written within `window_s` seconds; 0 writes all. Lines that differ only in numbers
        and ids are of one kind. Twice as many lines of a kind are written, because each may be about another thing.
    most_of_a_place: lines of all kinds that one place in the code writes within that time.
    most_kept: how many lines, kinds and places are distinguished at a time; the rest are counted only by place.
    """

    def __init__(
        self, most: int = 5, *, most_of_a_place: int = 50, window_s: float = 10.0, most_kept: int = 1000
    ) -> None:
        self.window_s = window_s
        self._most = most
        self._most_of_a_place = most_of_a_place
        self._most_kept = most_kept
        self._kinds: dict[Hashable, _Kind] = {}

    def admits(self, record: logging.LogRecord, text: str, request: RequestIds, now: float) -> bool:
        """Whether to write a record; otherwise it is counted.

        text: its message. request: the ids of its request. now: seconds of a monotonic clock.
        """
        if not self._most:
            return True
        if len(self._kinds) >= self._most_kept:
            self._forget(now)
        failure = record.exc_info[0] if record.exc_info else None
        compared = text[:_COMPARED]
        kinds = [(self._kind((record.levelno, record.pathname, record.lineno), now), self._most_of_a_place)]
        for message, most in ((_VARYING.sub("#", compared), 2 * self._most), (compared, self._most)):
            key = (most, record.name, record.levelno, failure, message)
            if key in self._kinds or len(self._kinds) < self._most_kept:
                kinds.append((self._kind(key, now), most))
        full = next((kind for kind, most in reversed(kinds) if kind.written >= most), None)
        if full is None:
            for kind, _ in kinds:
                kind.write()
            return True
        full.hold(record, request, compared)
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
        """The lines that were not written, of the kinds whose window has ended at `now`, or of all kinds."""
        for key, kind in list(self._kinds.items()):
            if kind.held is not None and (now is None or kind.until <= now):
                del self._kinds[key]
                yield kind.held

    def next_over(self) -> float | None:
        """The time of the next summary; None if nothing is held back."""
        return min((kind.until for kind in list(self._kinds.values()) if kind.held is not None), default=None)
