"""Follows a call through the points at which it waits, so that something else happens exactly there."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any, TypeVar

Result = TypeVar("Result")


@types.coroutine
def followed(call: Coroutine[Any, Any, Result], on_suspended: Callable[[int], None]) -> Generator[Any, Any, Result]:
    """Await `call`. on_suspended: is called with 1, 2, ... whenever the call begins to wait, before it waits.

    Waiting of other tasks that the call starts does not count.
    """
    count = 0
    go_on: Callable[[], Any] = partial(call.send, None)
    while True:
        try:
            waiting = go_on()
        except StopIteration as end:
            result: Result = end.value
            return result
        count += 1
        on_suspended(count)
        try:
            value = yield waiting
        except BaseException as error:
            go_on = partial(call.throw, error)
        else:
            go_on = partial(call.send, value)


async def suspensions(call: Coroutine[Any, Any, Any]) -> int:
    """How often a call waits."""
    counts = [0]
    await followed(call, counts.append)
    return counts[-1]


def spread(last: int, most: int) -> list[int]:
    """At most `most` of the numbers from 1 to `last`, with both ends."""
    if last <= most:
        return [*range(1, last + 1)]
    return sorted({1 + place * (last - 1) // (most - 1) for place in range(most)})
