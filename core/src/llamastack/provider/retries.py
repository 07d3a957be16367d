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
        clients do not come back at once.
        """
        for attempt in range(self.most):
            try:
                return await call()
            except RateLimitError as error:
                wanted = error.retry_after
                if wanted is None:
                    wanted = min(_FIRST_WAIT_S * 2**attempt, self.longest_wait_s)
                    wanted *= random.uniform(0.5, 1)  # noqa: S311 - spreads load, guards nothing
                elif wanted > self.longest_wait_s:
                    raise
                else:
                    wanted += random.uniform(0, 0.1 * wanted)  # noqa: S311
            await anyio.sleep(wanted)
        return await call()
