"""Halves of surrogate pairs in text: JSON may hold them, Unicode text may not.

A backend that cuts its reply between two UTF-16 units sends one half in each of two events, as `\\ud83d` and `\\ude00`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

import pydantic_core

_HALF = re.compile("[\ud800-\udfff]")
_FIRST_HALF = re.compile("[\ud800-\udbff]\\Z")
_ESCAPED_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


def decode_json(data: bytes) -> Any:
    """The value of a JSON text, in which lone surrogates stay as they are and bytes that are not UTF-8 become U+FFFD.

    Raises ValueError for what is not JSON.
    """
    try:
        return pydantic_core.from_json(data)
    except ValueError:
        text = _text_of(data)
        if text is None:
            raise
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def encode_json(value: Any, *, inf_nan_mode: Literal["null", "constants", "strings"] = "constants") -> bytes:
    """The JSON text of a value, with U+FFFD for lone surrogates. Raises ValueError for one that has no such text."""
    try:
        return pydantic_core.to_json(value, inf_nan_mode=inf_nan_mode)
    except ValueError as error:
        if "surrogates not allowed" not in str(error):
            raise
    return pydantic_core.to_json(whole_texts(value), inf_nan_mode=inf_nan_mode)


def _text_of(data: bytes) -> str | None:
    """What to read in a second attempt; None where that cannot help."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return data.decode("utf-8", "replace")
    return text if _ESCAPED_HALF.search(data) else None


def whole_text(text: str) -> str:
    """`text` with the two halves of a pair joined, and U+FFFD for each lone one."""
    if text.isascii() or _HALF.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def whole_texts(value: Any) -> Any:
    """The same of every text in a decoded JSON value, names of fields too."""
    if isinstance(value, str):
        return whole_text(value)
    if isinstance(value, list | tuple):
        return [whole_texts(item) for item in value]
    if isinstance(value, Mapping):
        return {whole_text(name) if isinstance(name, str) else name: whole_texts(item) for name, item in value.items()}
    return value


class SurrogateJoiner:
    """Joins pairs whose halves come in two pieces of one text."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = ""

    def add(self, piece: str) -> str:
        """The text that is certain now; a first half at its end is held back until the next piece."""
        if not self._held and piece.isascii():
            return piece
        text = self._held + piece
        self._held = text[-1:] if _FIRST_HALF.search(text) else ""
        return whole_text(text[: len(text) - len(self._held)])

    def end(self) -> str:
        """What was held back: U+FFFD, or nothing."""
        held, self._held = self._held, ""
        return whole_text(held)
