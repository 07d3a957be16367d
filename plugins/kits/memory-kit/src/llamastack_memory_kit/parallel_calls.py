"""Many calls of a model, a few at the same time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import anyio

_T = TypeVar("_T")


async def call_each(call: Callable[[_T], Awaitable[None]], items: Sequence[_T], at_once: int) -> None:
    """Call once for each item, in order, at most `at_once` at the same time.

    After the first failure, or when the caller is cancelled, no further call is made, and those in flight are
    cancelled. Raises the first failure.
    """
    failures: list[Exception] = []
    waiting = iter(items)

    async def work() -> None:
        for item in waiting:
            try:
                await call(item)
            except Exception as error:  # the group would wrap it
                failures.append(error)
                tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for _ in range(min(at_once, len(items))):
            tasks.start_soon(work)
    if failures:
        raise failures[0]
