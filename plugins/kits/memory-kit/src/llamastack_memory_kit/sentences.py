"""Where sentences and paragraphs end. These are only the better places to cut a text, so a rare miss does no harm."""

from __future__ import annotations

import re
from collections.abc import Iterator

SENTENCE, PARAGRAPH = 1, 2
"""What ends at a place."""

_CLOSING = r"[\"'”’»)\]}]"
_ENDS = re.compile(
    r"(?P<paragraph>\n[^\S\n]*+\n)"
    # A line that starts as a heading or an item of a list.
    r"|(?P<line>\n(?=[^\S\n]*+(?:#{1,6}|[-*+•]|\d{1,9}[.)])[^\S\n]))"
    r"|[。！？｡][」』”’）]*+"
    # The look-behind keeps a long row of marks from being tried at each of them.
    rf"|(?<![.!?…])(?P<marks>[.!?…؟।۔]++){_CLOSING}*+(?=\s++(?P<next>\S))"
)
_NO_END = re.compile(
    r"(?:^|[\s(])(?:[^\W\d_]|(?:[^\W\d_]\.)+[^\W\d_]|Mr|Mrs|Ms|Dr|Prof|St|vs|cf|al|No|Nr|Fig|Abb|Vol|approx|ca|bzw|usw)$"
    r"|(?:^|\n)\s*\d+$"
)
_INSIDE_A_WORD = re.compile(r"[^\W\d_]{2}")
_WINDOW = 1 << 14
_LONGEST_ABBREVIATION = 12
_HEADING = re.compile(r" {0,3}#{1,6}[^\S\n]")
_LONGEST_HEADING = 1000


def ends_in(text: str) -> Iterator[tuple[int, int]]:
    """(place in characters behind the end, SENTENCE or PARAGRAPH), in order. Takes linear time.

    A sentence ends with `.`, `!`, `?`, or their like in other scripts, before white space and something that is no
    lower-case letter; not behind an abbreviation, an initial or the number of an item. A line before a heading or an
    item of a list ends like a sentence. A blank line ends a paragraph, but not
    behind a heading of Markdown: a heading belongs to the text below it.
    """
    for found in (found for start, end in _windows(text) for found in _ENDS.finditer(text, start, end)):
        if found["paragraph"] is not None:
            if not _is_behind_heading(text, found.start()):
                yield found.start(), PARAGRAPH
        elif found["line"] is not None:
            yield found.start(), SENTENCE
        elif found["marks"] is None or not _goes_on(text, found):
            yield found.end(), SENTENCE


def _windows(text: str) -> Iterator[tuple[int, int]]:
    """Parts of the text by their places, each to the inside of a word, where nothing ends.

    A search in the whole of a long text would hold up all other threads.
    """
    start = 0
    while start < len(text):
        found = _INSIDE_A_WORD.search(text, start + _WINDOW)
        end = len(text) if found is None else found.start() + 1
        yield start, end
        start = end


def _is_behind_heading(text: str, end: int) -> bool:
    start = text.rfind("\n", max(end - _LONGEST_HEADING, 0), end) + 1
    return _HEADING.match(text, start, end) is not None


def _goes_on(text: str, found: re.Match[str]) -> bool:
    if found["next"].islower():
        return True
    before = text[max(found.start() - _LONGEST_ABBREVIATION, 0) : found.start()]
    return found["marks"] == "." and _NO_END.search(before) is not None
