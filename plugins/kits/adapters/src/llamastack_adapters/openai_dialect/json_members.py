"""Changes members of a JSON object in its text, so that every other byte stays as it was written.

The work is linear in the size of the text, whatever its content.
"""

from __future__ import annotations

import functools
import re
import secrets
from typing import NamedTuple

import pydantic_core
from pydantic_core import SchemaValidator, core_schema

_STRING = re.compile(rb'\s*("(?:[^"\\]++|\\.)*+")', re.DOTALL)
# No client can guess it, so no text contains it.
_MARK = f"mark_{secrets.token_hex(6)}"
_NUMBER_OF_LAST = SchemaValidator(
    core_schema.typed_dict_schema({_MARK: core_schema.typed_dict_field(core_schema.int_schema())})
)


def with_string(text: bytes, name: str, value: str) -> bytes:
    """`text` with another value of its member `name`, a string; of the last one, which counts, where it is repeated.

    text: a valid JSON object that has such a member. name: ASCII letters, digits and `_`.
    """
    spelling = _spelling(name)
    start = spelling.start_of_single(text)
    if start is None:
        parts = spelling.split(text)
        # A member of its own, with a number, before each; the last of them in the outermost object is read.
        before = b'"%b":%%d,%b:' % (_MARK.encode(), spelling.plain)
        numbered = [before % number for number in range(len(parts) // 2)]
        last = _NUMBER_OF_LAST.validate_json(_joined(parts, numbered))[_MARK]
        start = sum(map(len, parts[: 2 * last + 2]))
    found = _STRING.match(text, start)
    if found is None:
        raise ValueError(f"'{name}' is not a string")
    # perf: llamastack-v1-1mb-id. What follows is copied once; `join` would also release the interpreter.
    return text[: found.start(1)] + pydantic_core.to_json(value) + memoryview(text)[found.end(1) :]


def renamed(text: bytes, name: str, other: str) -> bytes:
    """`text` with the name `other` for its member `name`, for each of them where it is repeated.

    text: a valid JSON object that has such a member. name, other: ASCII letters, digits and `_`.
    """
    spelling = _spelling(name)
    key = b'"%b":' % other.encode()
    parts = spelling.split(text)
    if len(parts) > 3:
        # Each gets a name of its own; those in the outermost object are read.
        numbered = [f'"{_MARK}{number}":'.encode() for number in range(len(parts) // 2)]
        outermost = pydantic_core.from_json(_joined(parts, numbered))
        places = [1 + 2 * int(given.removeprefix(_MARK)) for given in outermost if given.startswith(_MARK)]
    else:
        places = [1]
    for place in places:
        parts[place] = key
    return b"".join(parts)


def _joined(parts: list[bytes], keys: list[bytes]) -> bytes:
    made = list(parts)
    made[1::2] = keys
    return b"".join(made)


class _Spelling(NamedTuple):
    """A pattern for a key: in JSON each letter may be escaped."""

    plain: bytes
    escapes: frozenset[bytes]
    plain_key: re.Pattern[bytes]
    any_key: re.Pattern[bytes]

    def start_of_single(self, text: bytes) -> int | None:
        """Where the value begins, if there is one such key in a text that is known to have one: nothing else is it."""
        # perf: llamastack-v1-1mb-id. Backwards, the search for the last one is the only one that reads all of it.
        first = text.find(self.plain)
        if first < 0 or text.rfind(self.plain) != first or self._has_escapes(text):
            return None
        return text.index(b":", first + len(self.plain)) + 1

    def split(self, text: bytes) -> list[bytes]:
        """What stands before, between and after such keys, of whatever object, and at odd places the keys themselves,
        each with its colon.

        A key that ends with the name after a quotation mark inside it is among them.
        """
        return (self.any_key if self._has_escapes(text) else self.plain_key).split(text)

    def _has_escapes(self, text: bytes) -> bool:
        # perf: llamastack-v1-1mb-id. Most texts have line breaks as their only escapes, and small ones have none.
        if b"\\" not in text or text.rfind(b"\\u00") < 0:
            return False
        return any(escape in text for escape in self.escapes)


@functools.lru_cache(maxsize=64)
def _spelling(name: str) -> _Spelling:
    letters = b"".join(rb"(?:%b|\\u00(?i:%02x))" % (letter.encode(), ord(letter)) for letter in name)
    return _Spelling(
        plain=b'"%b"' % name.encode(),
        escapes=frozenset(b"\\u00%x" % (ord(letter) // 16) for letter in name),
        plain_key=re.compile(rb'("%b"\s*:)' % name.encode()),
        any_key=re.compile(rb'("%b"\s*:)' % letters),
    )
