"""Where the tokens of a text are, and where it may be cut: by words, or by the tokenizer of a model."""

from __future__ import annotations

import functools
import re
import string
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from llamastack_memory_kit.sentences import ends_in

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LONGEST_WORD = 12
_WINDOW = 1 << 14
# Han, Hiragana, Katakana, Thai, Lao, Khmer and Myanmar are written without spaces.
_UNSPACED = (
    r"\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U000323af"
    r"\u0e01-\u0e3a\u0e40-\u0e4e\u0e50-\u0e59\u0e80-\u0eff\u1780-\u17d3\u17d7\u17dc-\u17ff\u19e0-\u19ff"
    r"\u1000-\u1049\u1050-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"
)
_JOINER = r"\u200d"  # joins emoji into one
_SKIN_TONES = r"\U0001f3fb-\U0001f3ff"
_LAST_OF_CLASSES = 0x1F000


@functools.cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The pattern of a token, and that of two characters between which no text is cut."""
    kinds: dict[str, list[str]] = {}
    for each in map(chr, range(_LAST_OF_CLASSES)):
        kinds.setdefault(unicodedata.category(each)[0], []).append(each)
    punctuation = re.escape("".join({*kinds["P"], *string.punctuation}))
    marks = rf"{''.join(kinds['M'])}{_JOINER}{_SKIN_TONES}"
    word = rf"[^\s{_UNSPACED}{punctuation}]"
    token = (
        rf"[{_UNSPACED}]|[{punctuation}]|{word}{{1,{_LONGEST_WORD}}}(?:[{marks}]|(?<={_JOINER})\S){{0,{_LONGEST_WORD}}}"
    )
    joined = rf"{word}{word}|\S[{marks}]|{_JOINER}\S"
    return re.compile(token), re.compile(joined)


class TokenSpans:
    """The tokens of one text.

    starts, ends: of each token, in characters; together they cover the text.
    boundaries: one byte per token and one for the end: 1 if the text may be cut before that token, 0 within a word or
    a character.
    breaks: one byte per token and one for the end: SENTENCE or PARAGRAPH if one ends before that token, else 0.
    """

    def __init__(self, text: str, windows: Iterator[list[tuple[int, int]]]) -> None:
        """windows: places of tokens, in order. They may overlap, and need not cover the text."""
        _, joined = _patterns()
        starts, ends, boundaries = array("q"), array("q"), bytearray()
        for spans in windows:
            for start, end in spans:
                if text[start:end].strip():
                    within = bool(starts) and (start < ends[-1] or joined.match(text, start - 1) is not None)
                    boundaries.append(not within)
                    starts.append(start)
                    ends.append(end)
        if not starts and text.strip():
            # A tokenizer may drop every character, such as those of zero width. Only white space counts as no content.
            starts.append(0)
            ends.append(len(text))
            boundaries.append(1)
        if starts:
            starts[0] = 0
            for place in range(len(starts) - 1):
                # Characters that a tokenizer drops belong to the token before them.
                ends[place] = max(ends[place], starts[place + 1])
            ends[-1] = len(text)
        boundaries.append(1)
        self.starts, self.ends, self.boundaries = starts, ends, boundaries
        self.breaks = bytearray(len(boundaries))
        for place, kind in ends_in(text):
            token_place = bisect_left(starts, place)
            if boundaries[token_place]:
                self.breaks[token_place] = max(self.breaks[token_place], kind)

    def __len__(self) -> int:
        return len(self.starts)


def spans_of_words(text: str, check: Callable[[], None]) -> TokenSpans:
    """A token is a word, a punctuation mark, or one character of a script that is written without spaces.

    A longer word counts one token for each 12 characters or part of them. check: called again and again; it may raise.
    """
    token, _ = _patterns()

    def windows() -> Iterator[list[tuple[int, int]]]:
        for start, end in _windows(text):
            check()
            yield [found.span() for found in token.finditer(text, start, end)]

    return TokenSpans(text, windows())


def spans_of_tokenizer(tokenizer: Tokenizer, text: str, check: Callable[[], None]) -> TokenSpans:
    """The tokens of a tokenizer, without those that it adds. check: called again and again; it may raise."""

    def windows() -> Iterator[list[tuple[int, int]]]:
        for offset, end in _windows(text):
            check()
            found = tokenizer.encode(text[offset:end], add_special_tokens=False).offsets
            yield [(offset + start, offset + behind) for start, behind in found]

    return TokenSpans(text, windows())


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a tokenizer.json. Raises ValueError if it cannot be read, or `tokenizers` is not installed."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ValueError(f"tokenizer: needs `pip install 'llamastack-memory-kit[tokenizer]'`: {error}") from error
    try:
        tokenizer: Tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises nothing more specific
        raise ValueError(f"tokenizer: {path} cannot be read as a tokenizer.json: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _windows(text: str) -> Iterator[tuple[int, int]]:
    """Parts of the text by their places, cut at white space if there is any.

    A tokenizer makes several objects per token; for a whole document these would take many times its size.
    """
    start = 0
    while start < len(text):
        end = min(start + _WINDOW, len(text))
        if end < len(text):
            cut = max(text.rfind(space, start + 1, end) for space in ("\n", " "))
            end = cut if cut > start else end
        yield start, end
        start = end
