"""Cuts text into overlapping chunks of tokens. Every chunk is an exact slice of the text."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Regex, Tokenizer, pre_tokenizers

_LONGEST_WORD = 12
_WINDOW = 1 << 14


@dataclass(frozen=True, slots=True)
class Chunk:
    """A slice of a document.

    text: without white space at its ends. start: where it starts in the document, in characters.
    token_count: at least 1.
    """

    text: str
    start: int
    token_count: int


class Chunker:
    """Counts tokens by a tokenizer.json, or by words.

    Without a file a token is a word, a punctuation mark, or one character of a script that is written without spaces;
    a longer word counts as one token for each 12 characters or part of them. English prose has about 15 % more tokens
    by the WordPiece vocabulary of BERT than by this count.
    """

    def __init__(self, tokenizer: Path | None = None) -> None:
        """Raises ValueError if `tokenizer` cannot be read as a tokenizer.json."""
        self._tokenizer: Tokenizer | None = None
        if tokenizer is not None:
            try:
                self._tokenizer = Tokenizer.from_str(tokenizer.read_text(encoding="utf-8"))
            except Exception as error:  # the library raises nothing more specific
                raise ValueError(f"tokenizer: {tokenizer} cannot be read as a tokenizer.json: {error}") from error
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
        self._words = pre_tokenizers.Sequence(
            [
                pre_tokenizers.BertPreTokenizer(),
                pre_tokenizers.Split(
                    Regex(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"), "isolated"
                ),
                pre_tokenizers.FixedLength(length=_LONGEST_WORD),
            ]
        )

    def split(self, text: str, size: int, overlap: int) -> list[Chunk]:
        """Chunks of `size` tokens; the last may have fewer. Neighbours share `overlap` tokens.

        Every character that is not white space is in a chunk; a text of white space has no chunks.
        size: at least 1. overlap: 0 to size - 1. Keeps a CPU busy.
        """
        starts, ends = self._spans(text)
        chunks: list[Chunk] = []
        first = 0
        while first < len(starts):
            behind = min(first + size, len(starts))
            piece = text[starts[first] : ends[behind - 1]].lstrip()
            chunks.append(Chunk(piece.rstrip(), ends[behind - 1] - len(piece), behind - first))
            if behind == len(starts):
                break
            first += size - overlap
        return chunks

    def _spans(self, text: str) -> tuple[array[int], array[int]]:
        """Where each token starts and ends. Characters that the tokenizer drops belong to the token before them."""
        starts, ends = array("q"), array("q")
        for offset, window in _windows(text):
            for start, end in self._offsets(window):
                if window[start:end].strip():
                    starts.append(offset + start)
                    ends.append(offset + end)
        if not starts:
            # A tokenizer may drop every character, such as those of zero width. Only white space counts as no content.
            return (array("q", [0]), array("q", [len(text)])) if text.strip() else (starts, ends)
        starts[0] = 0
        for place in range(len(starts) - 1):
            ends[place] = max(ends[place], starts[place + 1])
        ends[-1] = len(text)
        return starts, ends

    def _offsets(self, window: str) -> list[tuple[int, int]]:
        if self._tokenizer is not None:
            return self._tokenizer.encode(window, add_special_tokens=False).offsets
        return [span for _, span in self._words.pre_tokenize_str(window)]


def _windows(text: str) -> Iterator[tuple[int, str]]:
    """Parts of the text with their offsets, cut at white space if there is any.

    The tokenizers make several objects per token; for a whole document these would take many times its size.
    """
    start = 0
    while start < len(text):
        end = min(start + _WINDOW, len(text))
        if end < len(text):
            cut = max(text.rfind(space, start + 1, end) for space in ("\n", " "))
            end = cut if cut > start else end
        yield start, text[start:end]
        start = end
