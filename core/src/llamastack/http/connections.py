"""Kept connections: asking again where the other side has closed one meanwhile."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from llamastack.provider.connection_errors import closed_without_answer, error_kinds

_T = TypeVar("_T")
_STALE_WITHIN_S = 0.1
needs_fresh: ContextVar[bool] = ContextVar("llamastack_fresh_connection", default=False)
"""Whether a request must not go out on a connection that was kept."""
UNLIMITED = "llamastack.unlimited"
"""An extension of a request whose answer is read block by block and may be of any length."""


@contextmanager
def fresh_connections() -> Iterator[None]:
    """What is sent inside goes out on connections of its own, which are not kept."""
    token = needs_fresh.set(True)
    try:
        yield
    finally:
        needs_fresh.reset(token)


async def retry_stale_connection(call: Callable[[], Awaitable[_T]], dropped: Callable[[Exception], bool]) -> _T:
    """`call`, and again on a fresh connection where it met a kept one that the backend has closed meanwhile.

    Such a call fails at once. A call that fails later may have begun at the backend and is not made again. The time
    that this thread computes meanwhile does not count: with many calls at once, each hears late of its connection.
    Inside `fresh_connections` there is one attempt, because its connection was not kept.
    """
    if needs_fresh.get():
        return await call()
    started = time.monotonic() - time.thread_time()
    try:
        return await call()
    except Exception as error:
        if not dropped(error) or time.monotonic() - time.thread_time() - started > _STALE_WITHIN_S:
            raise
    with fresh_connections():
        return await call()


def is_stale_connection(error: Exception) -> bool:
    """Whether the connection of a request ended before the answer began."""
    cause = error.__cause__
    if isinstance(cause, Exception) and type(cause).__module__.startswith("aiohttp"):
        kind = type(cause).__name__
        return kind in ("ClientOSError", "ClientConnectionResetError") or closed_without_answer(error)
    return bool(error_kinds(error) & {"ReadError", "WriteError"}) or closed_without_answer(error)
