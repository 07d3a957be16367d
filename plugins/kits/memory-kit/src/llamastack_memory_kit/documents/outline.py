"""The title and the headings of a document, by their places in its text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_HEADING_LINE = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?$")
_CLOSING_MARKS = re.compile(r"(?:^|[ \t])#+[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_FRONT_MATTER = re.compile(r"---[ \t]*\n(?:.*\n)*?---[ \t]*(?:\n|$)")
_NO_PARAGRAPH = re.compile(r" {0,3}(?:[>|]|[-*+][ \t]|\d{1,9}[.)][ \t])| {4}|\t")
_LONGEST_LINE = 1000
"""Characters of a line that may be a heading; a longer one is text."""


class Heading(NamedTuple):
    """A heading of a document.

    start: where it starts in the text, in characters. level: 1 to 6. text: what it says.
    """

    start: int
    level: int
    text: str


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """What was read of a document.

    text: its text. title: the one that it has itself, or "". headings: in their order in the text.
    """

    text: str
    title: str = ""
    headings: tuple[Heading, ...] = ()


def markdown_headings(text: str) -> tuple[Heading, ...]:
    """The headings of a Markdown text: lines with `#` and underlined lines, outside of fenced code.

    Source of the form: CommonMark 0.31, sections 4.2, 4.3 and 4.5. A parser for all of Markdown takes quadratic time on
    some texts; this takes linear time, so that it needs no process of its own.
    """
    return tuple(_markdown_headings(text))


def _markdown_headings(text: str) -> Iterator[Heading]:
    fence, above, above_start = "", "", 0
    metadata = _FRONT_MATTER.match(text)  # of a site's generator; it is no part of the page
    start = 0 if metadata is None else metadata.end()
    while start < len(text):
        # `splitlines` would hold the interpreter's lock for all lines of a large text.
        here, start = start, text.find("\n", start) + 1 or len(text)
        line = text[here:start]
        shown = "" if len(line) > _LONGEST_LINE else line.rstrip()
        mark = _FENCE.match(shown)
        if fence:
            if mark is not None and mark[1].startswith(fence) and not shown[mark.end() :].strip():
                fence = ""
            above = ""
        elif mark is not None:
            fence, above = mark[1], ""
        elif (found := _HEADING_LINE.match(shown)) is not None:
            yield from _heading(here, len(found[1]), _CLOSING_MARKS.sub("", found[2] or ""))
            above = ""
        elif above and (under := _UNDERLINE.match(shown)) is not None:
            yield from _heading(above_start, 1 if under[1][0] == "=" else 2, above)
            above = ""
        else:
            above = "" if _NO_PARAGRAPH.match(shown) else shown
            above_start = here


def _heading(start: int, level: int, text: str) -> Iterator[Heading]:
    if shown := " ".join(text.split()):
        yield Heading(start, level, shown)
