"""Texts, words and metadata in the form in which PostgreSQL keeps them.

PostgreSQL keeps neither the character 0 nor lone surrogates. Both are escaped, so that a text is read as it was
written, and so that escaped texts have the order of code points of the texts themselves.
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal

from llamastack.api.base import JsonObject

_ESCAPES = {
    "\0": "\x01\x01",
    "\x01": "\x01\x02",
    "\ud7ff": "\ud7ff\x01",
    # Surrogates come after U+D7FF, and before U+E000.
    **{chr(code): "\ud7ff" + chr(code - 0xD800 + 2) for code in range(0xD800, 0xE000)},
}
_ORIGINALS = {escaped: plain for plain, escaped in _ESCAPES.items()}
_TO_ESCAPE = re.compile("[\0\x01\ud7ff-\udfff]")
_ESCAPED = re.compile("[\x01\ud7ff].", re.DOTALL)
# A character of a script without spaces is a word, as it is a token for the kit.
_ALONE = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]{{1,500}}")
_BEYOND_FLOATS = "1" + 400 * "0"


def escaped(text: str) -> str:
    """The text that the database keeps."""
    return _TO_ESCAPE.sub(lambda found: _ESCAPES[found[0]], text)


def unescaped(kept: str) -> str:
    """The text that was kept."""
    return _ESCAPED.sub(lambda found: _ORIGINALS[found[0]], kept)


def words(text: str) -> list[str]:
    """The words of a text, in lower case, in order, without signs. The same for chunks and for queries.

    PostgreSQL's own parser takes addresses and paths for one word, and its result depends on the database's locale.
    """
    return _WORD.findall(text.casefold())


def number(value: float) -> str:
    """The exact decimal form of a number, infinity as one above all floats."""
    if isinstance(value, int):
        return str(value)
    if math.isinf(value):
        return _BEYOND_FLOATS if value > 0 else "-" + _BEYOND_FLOATS
    return format(Decimal(value), "f")


def scalar(value: object) -> str | None:
    """A value in JSON as filters compare it; None for what fits no comparison."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(escaped(value), ensure_ascii=False)
    if isinstance(value, int | float) and not math.isnan(value):
        return number(value)
    return None


def fields(metadata: JsonObject) -> str:
    """What filters look at, in JSON: for each key the list of the values that can fit."""
    parts = []
    for key, kept in metadata.items():
        items = [scalar(item) for item in (kept if isinstance(kept, list) else [kept])]
        known = [item for item in items if item is not None]
        if known:
            parts.append(f"{json.dumps(escaped(key), ensure_ascii=False)}:[{','.join(known)}]")
    return "{" + ",".join(parts) + "}"
