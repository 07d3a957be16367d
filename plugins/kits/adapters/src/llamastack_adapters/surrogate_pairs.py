"""Halves of surrogate pairs in answers of backends: read from their JSON, and joined across the pieces of a stream."""

from __future__ import annotations

import json
import re
from typing import Any

import pydantic_core

from llamastack.http.lone_surrogates import whole_text

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


def _text_of(data: bytes) -> str | None:
    """The text to parse in a second attempt; None if that cannot help."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return data.decode("utf-8", "replace")
    return text if _ESCAPED_HALF.search(data) else None


class SurrogateJoiner:
    """Joins surrogate pairs whose halves come in two pieces of one text."""

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
        """The text that was held back: U+FFFD, or nothing."""
        held, self._held = self._held, ""
        return whole_text(held)
