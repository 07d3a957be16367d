"""Halves of surrogate pairs in text: JSON may hold them, Unicode text may not.

A backend that cuts its reply between two UTF-16 units sends one half in each of two events, as `\\ud83d` and `\\ude00`.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping
from typing import Literal

import pydantic_core

_HALF = re.compile("[\ud800-\udfff]")


def encode_json(value: object, *, inf_nan_mode: Literal["null", "constants", "strings"] = "constants") -> bytes:
    """The JSON text of a value, with U+FFFD for lone surrogates. Raises ValueError for one that has no such text.

    An `array` of numbers, such as a vector of the memory kit, is a list.
    """
    try:
        return pydantic_core.to_json(value, inf_nan_mode=inf_nan_mode, fallback=_to_list)
    except ValueError as error:
        if "surrogates not allowed" not in str(error):
            raise
    return pydantic_core.to_json(whole_texts(value), inf_nan_mode=inf_nan_mode, fallback=_to_list)


def _to_list(value: object) -> list[float]:
    if isinstance(value, array):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON text")


def whole_text(text: str) -> str:
    """`text` with the two halves of a pair joined, and U+FFFD for each lone one."""
    if text.isascii() or _HALF.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def whole_texts(value: object) -> object:
    """The same of every text in a decoded JSON value, names of fields too."""
    if isinstance(value, str):
        return whole_text(value)
    if isinstance(value, list | tuple):
        return [whole_texts(item) for item in value]
    if isinstance(value, Mapping):
        return {whole_text(name) if isinstance(name, str) else name: whole_texts(item) for name, item in value.items()}
    return value
