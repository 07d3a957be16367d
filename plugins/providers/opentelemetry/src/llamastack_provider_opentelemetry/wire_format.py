"""Joins serialized protobuf messages into larger ones.

Source: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor

_LENGTH_DELIMITED = 2
_WIRE_TYPES = {FieldDescriptor.TYPE_FIXED64: 1, FieldDescriptor.TYPE_FIXED32: 5}
_DELIMITED = frozenset([FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES])
_CONTINUES = 0x80


def tag_of(message: Any, field: str) -> bytes:
    """What stands before the length, or before the number, in a field of `message`, a class of generated messages.

    The field is a message, a text, bytes or a number of fixed size; another one raises KeyError.
    """
    described = message.DESCRIPTOR.fields_by_name[field]
    wire_type = _LENGTH_DELIMITED if described.type in _DELIMITED else _WIRE_TYPES[described.type]
    return varint(described.number << 3 | wire_type)


def embedded(tag: bytes, serialized: bytes) -> bytes:
    """The part of the larger message that holds a serialized one. tag: from `tag_of`."""
    return tag + varint(len(serialized)) + serialized


def varint(number: int) -> bytes:
    """A number of 0 or more, as lengths and tags have it."""
    if number < _CONTINUES:
        return bytes((number,))
    made = bytearray()
    while number >= _CONTINUES:
        made.append(number & 0x7F | _CONTINUES)
        number >>= 7
    made.append(number)
    return bytes(made)
