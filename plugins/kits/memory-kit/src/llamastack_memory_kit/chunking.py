"""Cuts text into overlapping pieces of tokens. Every piece is an exact slice of the text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llamastack_memory_kit.sentences import PARAGRAPH, SENTENCE
from llamastack_memory_kit.token_spans import TokenSpans, read_tokenizer, spans_of_tokenizer, spans_of_words

_LAST_PART = 3
"""A piece may end early in its last third, for the end of a paragraph or a sentence."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A slice of a text.

    text: without white space at its ends. start: where it starts, in characters. token_count: at least 1.
    """

    text: str
    start: int
    token_count: int


def _go_on() -> None:
    """The check of a caller that never stops."""


class Chunker:
    """Counts tokens by a tokenizer.json, or by words.

    Without a file a token is a word, a punctuation mark, or one character of a script that is written without spaces;
    a longer word counts as one token for each 12 characters or part of them. English prose has about 15 % more tokens
    by the WordPiece vocabulary of BERT than by this count.
    """

    def __init__(self, tokenizer: Path | None = None) -> None:
        """Raises ValueError if `tokenizer` cannot be read as a tokenizer.json."""
        self._spans: Callable[[str, Callable[[], None]], TokenSpans] = (
            spans_of_words if tokenizer is None else partial(spans_of_tokenizer, read_tokenizer(tokenizer))
        )

    def count(self, text: str) -> int:
        """The tokens of a text."""
        return len(self._spans(text, _go_on))

    def split(self, text: str, size: int, overlap: int, check: Callable[[], None] = _go_on) -> list[Piece]:
        """Pieces of at most `size` tokens, each with as many whole words as fit.

        A piece ends with a paragraph, or else with a sentence, if one ends in its last third. Neighbours share as many
        whole words as fit into `overlap` tokens, or whole sentences if one begins there. Only a word of more than
        `size` tokens is cut itself. Every character that is not white space is in a piece; a text of white space has
        no pieces.

        size: at least 1. overlap: 0 to size - 1. check: called again and again; it may raise. Keeps a CPU busy.
        """
        spans = self._spans(text, check)
        pieces: list[Piece] = []
        first, behind = 0, 0
        while first < len(spans):
            check()
            behind = _end(spans, first, behind, size)
            end = spans.ends[behind - 1]
            slice_ = text[spans.starts[first] : end].lstrip()
            pieces.append(Piece(slice_.rstrip(), end - len(slice_), behind - first))
            if behind == len(spans):
                break
            first = _next_start(spans, first, behind, size, overlap)
        return pieces


def _end(spans: TokenSpans, first: int, earlier: int, size: int) -> int:
    """Where the piece that starts at token `first` ends: behind `earlier`, the end of the piece before it."""
    last = min(first + size, len(spans))
    if last == len(spans):
        return last
    found = spans.boundaries.rfind(1, first + 1, last + 1)
    if found < 0:
        return last
    early = max(first + size - size // _LAST_PART, earlier + 1)
    for kind in (PARAGRAPH, SENTENCE):
        place = spans.breaks.rfind(kind, early, found + 1)
        if place >= 0:
            return place
    return found


def _next_start(spans: TokenSpans, first: int, behind: int, size: int, overlap: int) -> int:
    """Where the piece after [first, behind) starts: early enough to overlap, late enough that the next word fits."""
    if not spans.boundaries[behind]:
        return behind - overlap  # within a word that is longer than a piece
    next_word_end = spans.boundaries.find(1, behind + 1)
    earliest = min(max(behind - overlap, next_word_end - size, first + 1), behind)
    sentences = [place for kind in (PARAGRAPH, SENTENCE) if (place := spans.breaks.find(kind, earliest, behind)) >= 0]
    return min(sentences) if sentences else spans.boundaries.find(1, earliest, behind + 1)
