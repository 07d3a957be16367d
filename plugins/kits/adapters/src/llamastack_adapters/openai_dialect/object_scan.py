"""Finds out whether a JSON object that arrives in pieces is complete."""

from __future__ import annotations

import re

_OUTSIDE = re.compile(r'["{}\[\]]')
_INSIDE = re.compile(r'["\\]')


class ObjectScan:
    """Counts brackets. Every character is read once, however many pieces there are."""

    __slots__ = ("_depth", "_escaped", "_in_string", "begun", "ended", "surplus")

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._escaped = False
        self.begun = False
        """Whether there is anything but white space."""
        self.ended = False
        """Whether all opened brackets are closed."""
        self.surplus = False
        """Whether text follows the object."""

    def feed(self, text: str) -> None:
        """Read the next piece."""
        if not self._in_string and not text.strip():
            return
        self.begun = True
        place = 0
        while place < len(text) and not self.ended:
            if self._escaped:
                self._escaped = False
                place += 1
                continue
            found = (_INSIDE if self._in_string else _OUTSIDE).search(text, place)
            if found is None:
                place = len(text)
                break
            place = found.end()
            self._step(found[0])
        self.surplus = self.surplus or bool(text[place:].strip())
        self.ended = self.ended or (self._depth == 0 and not self._in_string)

    def _step(self, mark: str) -> None:
        if mark == "\\":
            self._escaped = True
        elif mark == '"':
            self._in_string = not self._in_string
        elif mark in "{[":
            self._depth += 1
        else:
            self._depth -= 1
            self.ended = self._depth <= 0
