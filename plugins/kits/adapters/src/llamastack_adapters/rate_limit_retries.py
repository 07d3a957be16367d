"""Asking again where a backend asks to slow down."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import anyio

from llamastack.provider.errors import RateLimitError

_T = TypeVar("_T")
_FIRST_WAIT_S = 0.5
_SHORTEST_WAIT_S = 0.25  # for a backend that asks for none at all: it has just said that it has too much to do


@dataclass(frozen=True, slots=True)
class Retries:
    """How often, and for how long, a call that met a rate limit is made again.

    most: further attempts.
    longest_wait_s: seconds before one; a backend that wants more is not waited for.

    Only rate limits: the backend has not begun then. What is down or broken is told at once.
    """

    most: int = 2
    longest_wait_s: float = 10.0

    async def run(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """What `call` gives, which must have had no effect when it raises RateLimitError.

        Raises what it raises. Without a Retry-After the wait doubles from half a second, with jitter, so that many
        clients do not come back at once. A backend that says that it need not be asked again is not.
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
        """Seconds until the next attempt; None where there is to be none."""
        wanted = error.retry_after
        if error.should_retry is False or max(wanted or 0, _SHORTEST_WAIT_S) > self.longest_wait_s:
            return None
        if wanted is None:
            wanted = min(_FIRST_WAIT_S * 2**attempt, self.longest_wait_s)
            wanted *= random.uniform(0.5, 1)  # noqa: S311 - spreads load, guards nothing
        else:
            wanted += random.uniform(0, 0.1 * wanted)  # noqa: S311
        return max(wanted, _SHORTEST_WAIT_S)
