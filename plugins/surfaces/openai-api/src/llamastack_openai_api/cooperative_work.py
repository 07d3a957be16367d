"""Splits long work into parts, so that other requests run in between."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TypeVar

from anyio.lowlevel import checkpoint

_T = TypeVar("_T")
_MADE_AT_ONCE = 1000  # items; each takes a few microseconds


async def in_turns(items: Iterator[_T]) -> list[_T]:
    """All items, made in parts. Other tasks run between two parts."""
    made: list[_T] = []
    while part := list(itertools.islice(items, _MADE_AT_ONCE)):
        made += part
        if len(part) == _MADE_AT_ONCE:
            await checkpoint()
    return made
