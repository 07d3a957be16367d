"""Joins serialized protobuf messages into larger ones.

Source: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from typing import Any

_LENGTH_DELIMITED = 2  # the wire type of a message inside a message
_CONTINUES = 0x80


def tag_of(message: Any, field: str) -> bytes:
    """What stands before the length of a message in a field of `message`, a class of generated messages."""
    return _varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | _LENGTH_DELIMITED)


def embedded(tag: bytes, serialized: bytes) -> bytes:
    """The part of the larger message that holds a serialized one. tag: from `tag_of`."""
    return tag + _varint(len(serialized)) + serialized


def _varint(number: int) -> bytes:
    if number < _CONTINUES:
        return bytes((number,))
    made = bytearray()
    while number >= _CONTINUES:
        made.append(number & 0x7F | _CONTINUES)
        number >>= 7
    made.append(number)
    return bytes(made)
