"""The forms that a secret takes where a backend or a library repeats it, and finding them in a text."""

from __future__ import annotations

import base64
import html
import json
import re
import sys
from collections.abc import Iterable, Iterator
from urllib.parse import quote_plus, unquote

STRUCK = "***"
_SHORTEST = 4
"""Characters. A shorter text would be found in ordinary words."""
_SHORTEST_LINE = 8
_MOST_ROUNDS = 20
_LAYERS = 2  # JSON inside JSON, as backends repeat requests
_SURROGATES = len(r"\ud83d\ude00")
_PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_BACKSLASH = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\U[0-9a-fA-F]{8}"
    r"|\\x[0-9a-fA-F]{2}|\\[\s\S]"
)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,8});")
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "0": "\0"}


def forms_of(secrets: Iterable[str], *, encoded: bool = True) -> frozenset[str]:
    """Every text to look for: each secret as it is, stripped, in one line, its lines, and encoded.

    encoded: False if there are too many secrets to search for every encoded form.
    """
    found: set[str] = set()
    for secret in secrets:
        if len(secret.strip()) < _SHORTEST:
            continue
        texts = {secret, secret.strip()}
        if encoded:
            texts |= {" ".join(secret.split()), *_lines(secret)}
            texts |= {form for text in texts if len(text) >= _SHORTEST for form in _encoded(text)}
        found |= texts
    return frozenset(form for form in found if len(form) >= _SHORTEST)


def _lines(secret: str) -> Iterator[str]:
    """The lines of a private key are secret one by one, its first and last are not."""
    lines = secret.split("\n")
    if len(lines) > 1:
        yield from (line for part in lines if len(line := part.strip()) >= _SHORTEST_LINE and line[:5] != "-----")


def _encoded(text: str) -> Iterator[str]:
    # The usual ones are looked for as they are: decoding a whole text, as `_views` does, changes the rest of it, too.
    yield from (quote_plus(text, errors="replace"), html.escape(text), repr(text)[1:-1])
    yield from (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    yield text.replace(" ", "+")  # what is left of the encoding of a form in its decoded text
    data = text.encode(errors="replace")
    yield data.hex()
    # What stands in the base64 of anything with the secret inside, such as "user:password": three ways to fall in.
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
        inner = coded[-(-shift * 8 // 6) : (shift + len(data)) * 8 // 6]
        yield inner
        yield inner.replace("+", "-").replace("/", "_")


def struck_out(text: str, forms: frozenset[str]) -> str:
    """`text` with every form struck out.

    A text that has one percent-encoded, escaped or as HTML entities is shown decoded.
    """
    for _ in range(_MOST_ROUNDS if forms else 0):
        found = next((view for view in _views(text) if any(form in view for form in forms)), None)
        if found is None:
            return text
        for form in sorted(forms, key=len, reverse=True):
            found = found.replace(form, STRUCK)
        text = found  # What is put together around a place can be a secret again, so it is searched once more.
    return STRUCK if forms else text


def _views(text: str, layers: int = _LAYERS) -> Iterator[str]:
    """The text as it is, and decoded once and twice in every way."""
    yield text
    if layers:
        for pattern, meaning in _ENCODINGS:
            decoded = pattern.sub(meaning, text)
            if decoded != text:
                yield from _views(decoded, layers - 1)


def _unquoted(found: re.Match[str]) -> str:
    return unquote(found[0])


def _unescaped(found: re.Match[str]) -> str:
    text, kind = found[0], found[0][1]
    if len(text) == _SURROGATES and kind == "u":
        return (bytes.fromhex(text[2:6]) + bytes.fromhex(text[8:12])).decode("utf-16-be", errors="replace")
    if kind in "uUx" and len(text) > 2:
        return _character(int(text[2:], 16))
    return _CONTROLS.get(kind, kind)


def _of_entity(found: re.Match[str]) -> str:
    text = found[0]
    if text[1] != "#":
        return html.unescape(text)
    # Not as HTML would have it, which drops control characters.
    return _character(int(text[3:-1], 16) if text[2] in "xX" else int(text[2:-1]))


def _character(number: int) -> str:
    return chr(number) if number <= sys.maxunicode else "\ufffd"


_ENCODINGS = ((_PERCENT, _unquoted), (_BACKSLASH, _unescaped), (_ENTITY, _of_entity))
