"""Texts for the checks of memory: words that nothing else has, long documents, and what a bank keeps of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
_SPREAD = 1_234_577
_LINES_PER_WORD = 5


def word(number: int) -> str:
    """A word of eight letters that is in no language. Each number from 0 to 24 million has another one."""
    place = number * _SPREAD % len(_SYLLABLES) ** 4
    made = ""
    for _ in range(4):
        place, syllable = divmod(place, len(_SYLLABLES))
        made += _SYLLABLES[syllable]
    return made


class Ledger:
    """A long text of lines that are all different. Every fifth line has a word of its own.

    text: the text, of about `tokens` tokens. words: the words of lines, in their order: of the first line, of every
    fifth one, and of the last.
    """

    def __init__(self, name: str, tokens: int, first: int) -> None:
        """name: is in every line. first: the number of the first word, so that ledgers can have different ones."""
        count = max(tokens // 10, 2)
        self.words: list[str] = []
        lines = []
        for place in range(count):
            marked = place % _LINES_PER_WORD == 0 or place == count - 1
            mark = word(first + place) if marked else "nobody"
            self.words += [mark] if marked else []
            lines.append(f"Entry {place} of {name} was written by {mark} today.")
        self.text = "\n".join(lines)


def plain(text: str) -> str:
    """The text with one space for each white space: some providers join words again."""
    return " ".join(text.split())


def uncovered(text: str, pieces: Iterable[str]) -> str:
    """The first part of a text that is in none of its pieces; empty if they cover it.

    Raises ValueError with the piece if one is no piece of the text.
    """
    whole = plain(text)
    spans = []
    for piece in map(plain, pieces):
        start = whole.find(piece)
        if start < 0:
            raise ValueError(piece)
        spans.append((start, start + len(piece)))
    end = 0
    for start, behind in sorted(spans):
        if whole[end:start].strip():
            return whole[end:start]
        end = max(end, behind)
    return whole[end:].strip()


def batches(words: list[str], size: int = 50) -> Iterator[str]:
    """Queries of at most `size` words."""
    for start in range(0, len(words), size):
        yield " ".join(words[start : start + size])
