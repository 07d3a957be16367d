"""The forms that a secret takes where a backend or a library repeats it, and finding them in a text."""

from __future__ import annotations

import base64
import html
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import quote_plus, unquote

STRUCK = "***"
_SHORTEST = 4
_SHORTEST_LINE = 8
_SURROGATES = len(r"\ud83d\ude00")
_PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_BACKSLASH = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\U[0-9a-fA-F]{8}"
    r"|\\x[0-9a-fA-F]{2}|\\[\s\S]"
)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,8});")
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "0": "\0"}


def forms_of(secrets: Iterable[str]) -> tuple[str, ...]:
    """Every text to look for, longest first: each secret as it is, stripped, in one line, its lines, and encoded."""
    found: set[str] = set()
    for secret in secrets:
        for text in {secret, secret.strip(), " ".join(secret.split()), *_lines(secret)}:
            found.update(form for form in _encoded(text) if len(form) >= _SHORTEST)
    return tuple(sorted(found, key=len, reverse=True))


def _lines(secret: str) -> Iterator[str]:
    """The lines of a private key are secret one by one, its first and last are not."""
    lines = secret.split("\n")
    if len(lines) > 1:
        yield from (line for part in lines if len(line := part.strip()) >= _SHORTEST_LINE and line[:5] != "-----")


def _encoded(text: str) -> Iterator[str]:
    if len(text) < _SHORTEST:
        return
    yield text
    yield quote_plus(text, errors="replace")
    yield from (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1])
    yield html.escape(text)
    data = text.encode(errors="replace")
    yield data.hex()
    yield from _base64(data)


def _base64(data: bytes) -> Iterator[str]:
    """What stands in the base64 of anything with `data` inside, such as "user:password": three ways to fall in."""
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
        inner = coded[-(-shift * 8 // 6) : (shift + len(data)) * 8 // 6]
        yield inner
        yield inner.replace("+", "-").replace("/", "_")


def plain_forms_of(texts: Iterable[str]) -> tuple[str, ...]:
    """The texts as they are, for where they are too many to look for all that could become of them."""
    found = {form for text in texts for form in (text, text.strip()) if len(form) >= _SHORTEST}
    return tuple(sorted(found, key=len, reverse=True))


def struck_out(text: str, forms: tuple[str, ...]) -> str:
    """`text` with every form struck out, also where the text has it percent-encoded, escaped or as HTML entities."""
    if not forms:
        return text
    while True:
        places = sorted(_places(text, forms))
        if not places:
            return text
        # Again, as what is put together around a place could be one. Each is longer than what stands there afterwards.
        text = _without(text, places)


def _places(text: str, forms: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    yield from _found(text, forms)
    for marker, layers in _VIEWS:
        if marker not in text:
            continue
        views: list[_View] = []
        decoded = text
        for decode in layers:
            view = decode(decoded)
            views.append(view)
            decoded = view.text
        for start, end in _found(decoded, forms):
            for view in reversed(views):
                start, end = view.begins[start], view.ends[end - 1]
            yield start, end


def _found(text: str, forms: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    for form in forms:
        at = text.find(form)
        while at >= 0:
            yield at, at + len(form)
            at = text.find(form, at + len(form))


def _without(text: str, places: list[tuple[int, int]]) -> str:
    pieces: list[str] = []
    kept = 0
    for start, end in places:
        if start >= kept:
            pieces += (text[kept:start], STRUCK)
        elif not pieces:
            pieces.append(STRUCK)
        kept = max(kept, end)
    pieces.append(text[kept:])
    return "".join(pieces)


class _View:
    """A text decoded, and where in the encoded text each of its characters begins and ends."""

    def __init__(self, text: str, pattern: re.Pattern[str], meaning: Callable[[str], str]) -> None:
        self.begins: list[int] = []
        self.ends: list[int] = []
        pieces: list[str] = []
        last = 0
        for match in pattern.finditer(text):
            start, end = match.span()
            decoded = meaning(match.group())
            self._add_same(last, start)
            self.begins += [start] * len(decoded)
            self.ends += [end] * len(decoded)
            pieces += (text[last:start], decoded)
            last = end
        self._add_same(last, len(text))
        self.text = "".join((*pieces, text[last:]))

    def _add_same(self, start: int, end: int) -> None:
        self.begins.extend(range(start, end))
        self.ends.extend(range(start + 1, end + 1))


def _unescaped(text: str) -> str:
    kind = text[1]
    if len(text) == _SURROGATES and kind == "u":
        return (bytes.fromhex(text[2:6]) + bytes.fromhex(text[8:12])).decode("utf-16-be", errors="replace")
    if kind in "uUx" and len(text) > 2:
        return _character(int(text[2:], 16))
    return _CONTROLS.get(kind, kind)


def _of_entity(text: str) -> str:
    if text[1] != "#":
        return html.unescape(text)
    # Not as HTML would have it, which drops control characters.
    return _character(int(text[3:-1], 16) if text[2] in "xX" else int(text[2:-1]))


def _character(number: int) -> str:
    return chr(number) if number <= sys.maxunicode else "\ufffd"


def _unquoted(text: str) -> _View:
    return _View(text, _PERCENT, unquote)


def _unslashed(text: str) -> _View:
    return _View(text, _BACKSLASH, _unescaped)


def _plain_of_html(text: str) -> _View:
    return _View(text, _ENTITY, _of_entity)


# What is in the text where something of the kind may be, and what to decode, one after the other.
_VIEWS: tuple[tuple[str, tuple[Callable[[str], _View], ...]], ...] = (
    ("%", (_unquoted,)),
    ("\\", (_unslashed,)),
    ("\\\\", (_unslashed, _unslashed)),  # JSON inside JSON, as backends repeat requests
    ("%25", (_unquoted, _unquoted)),
    ("&", (_plain_of_html,)),
    ("\\", (_unslashed, _unquoted)),
)
