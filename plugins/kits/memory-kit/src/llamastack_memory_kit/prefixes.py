"""The text that is put before a chunk when it is indexed: the title of its document, and the headings above it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Literal

from llamastack.api.base import JsonObject
from llamastack_memory_kit.documents import Heading, ReadDocument

ChunkPrefix = Literal["none", "title", "headings"]
"""What is put before each chunk."""

_BETWEEN = " > "
_LONGEST_PART = 200
"""Characters of a title or a heading that are used."""
_SHARE = 4
"""A prefix takes at most a quarter of a chunk."""


class Prefixes:
    """The prefixes of the chunks of one document, such as `Title > Heading > Heading`.

    tokens: the most that one of them takes.
    """

    def __init__(
        self, kind: ChunkPrefix, document: ReadDocument, metadata: JsonObject, size: int, count: Callable[[str], int]
    ) -> None:
        """size: tokens of a chunk with its prefix. count: the tokens of a text.

        The title is `title` of the document's metadata, else that of the file, else the first heading. A prefix that
        is too long loses the outer headings, then the title, then its last words.
        """
        self._most, self._count = size // _SHARE, count
        title = "" if kind == "none" else _title(document, metadata)
        headings = document.headings if kind == "headings" else ()
        self._text = document.text
        self._starts = [heading.start for heading in headings]
        self._fitted: dict[tuple[str, ...], tuple[str, int]] = {}
        self._above, self._at = [self._fit([title] if title else [])], [""]
        for path in _paths(headings):
            self._at.append(self._fit(_joined(title, path[:-1])))
            self._above.append(self._fit(_joined(title, path)))
        self.tokens = max(tokens for _, tokens in self._fitted.values())

    def before(self, start: int) -> str:
        """The prefix of the chunk that starts there, in characters. A heading inside the chunk is not part of it."""
        place = bisect_right(self._starts, start)
        begins = place > 0 and not self._text[self._starts[place - 1] : start].strip()
        return self._at[place] if begins else self._above[place]

    def _fit(self, parts: list[str]) -> str:
        key = tuple(parts)
        if key not in self._fitted:
            prefix = self._cut(parts)
            self._fitted[key] = prefix, self._count(prefix)
        return self._fitted[key][0]

    def _cut(self, parts: list[str]) -> str:
        while len(parts) > 1 and self._count(_BETWEEN.join(parts)) > self._most:
            parts = [parts[0], *parts[2:]] if len(parts) > 2 else parts[1:]
        words = _BETWEEN.join(parts).split()
        while words and self._count(" ".join(words)) > self._most:
            words.pop()
        return " ".join(words)


def _title(document: ReadDocument, metadata: JsonObject) -> str:
    own = metadata.get("title")
    given = own if isinstance(own, str) else ""
    first = document.headings[0].text if document.headings else ""
    return next((shown for each in (given, document.title, first) if (shown := _shown(each))), "")


def _paths(headings: Sequence[Heading]) -> list[list[str]]:
    """For each heading those above it, the outermost first, and itself."""
    open_: list[Heading] = []
    paths: list[list[str]] = []
    for heading in headings:
        while open_ and open_[-1].level >= heading.level:
            open_.pop()
        open_.append(heading)
        paths.append([_shown(each.text) for each in open_])
    return paths


def _joined(title: str, path: list[str]) -> list[str]:
    """Title and headings; a first heading that is the title comes once."""
    return path if not title or path[:1] == [title] else [title, *path]


def _shown(text: str) -> str:
    return " ".join(text.split())[:_LONGEST_PART].strip()
