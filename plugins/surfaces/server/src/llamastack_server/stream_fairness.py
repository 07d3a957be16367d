"""Turns for streams that always have more to send: a few continue at a time, and everything else runs in between."""

from __future__ import annotations

import asyncio
from collections import deque

_AT_ONCE = 4


class StreamTurns:
    """The streams of one event loop that wait for their turn.

    One pass of the loop is not enough: a new request needs half a dozen passes, and in each of them all of these
    streams would continue.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def next(self) -> None:
        """Wait for the caller's turn. By then everything else that can run has run."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._let_on, loop)
        self._waiting.append(turn)
        await turn

    def _let_on(self, loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(min(_AT_ONCE, len(self._waiting))):
            turn = self._waiting.popleft()
            if not turn.done():  # the stream was cancelled
                turn.set_result(None)
        if self._waiting:
            loop.call_soon(self._let_on, loop)
