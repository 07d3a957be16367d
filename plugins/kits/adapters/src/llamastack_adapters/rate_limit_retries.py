"""Retries of calls that met a rate limit."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import anyio

from llamastack.provider.backoff import pause_s
from llamastack.provider.errors import RateLimitError

_T = TypeVar("_T")
_FIRST_WAIT_S = 0.5
_SHORTEST_WAIT_S = 0.25  # also for a backend that asks for no wait: it is overloaded


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a call that met a rate limit is retried, and with which waits.

    most: the number of retries.
    longest_wait_s: the most seconds before a retry; if the backend asks for more, the call fails.

    Only a rate limit is retried, because the backend has not begun to work then. All other errors are raised at once.
    """

    most: int = 2
    longest_wait_s: float = 10.0

    async def run(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """The result of `call`, which must have no effect when it raises RateLimitError.

        Raises what `call` raises. Without a Retry-After the wait doubles from half a second, with jitter, so that many
        clients do not come back at once. There is no retry if the backend says that it should not be retried.
        """
        for attempt in range(self.most):
            try:
                return await call()
            except RateLimitError as error:
                wanted = self._pause(attempt, error)
                if wanted is None:
                    raise
            await anyio.sleep(wanted)
        return await call()

    def _pause(self, attempt: int, error: RateLimitError) -> float | None:
        """Seconds until the next attempt; None if there must be none."""
        wanted = error.retry_after
        if error.should_retry is False or max(wanted or 0, _SHORTEST_WAIT_S) > self.longest_wait_s:
            return None
        if wanted is None:
            wanted = pause_s(attempt + 1, _FIRST_WAIT_S, self.longest_wait_s)
            wanted *= random.uniform(0.5, 1)  # noqa: S311 - spreads load, guards nothing
        else:
            wanted += random.uniform(0, 0.1 * wanted)  # noqa: S311
        return max(wanted, _SHORTEST_WAIT_S)
