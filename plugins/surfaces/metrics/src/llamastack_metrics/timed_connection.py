"""A connection of the metrics' own port, with a time limit for whatever it waits for."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 5.0
REPLY_S = 60.0
IDLE_S = 75.0


class TimedConnection(H11Protocol):
    """Ends connections that send no whole head, do not read their reply, or do nothing: there are few places.

    uvicorn has a limit only for the time between two requests, which each byte stops.
    """

    _limit: asyncio.TimerHandle | None = None
    _is_idle = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Wait for a head."""
        super().connection_made(transport)
        self._allow(HEAD_S)

    def data_received(self, data: bytes) -> None:
        """A part of a head, or all of it."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._allow(REPLY_S)
        elif self._is_idle:
            self._allow(HEAD_S)

    def on_response_complete(self) -> None:
        """The server has given its reply to the kernel, or to a buffer."""
        before = self.cycle
        super().on_response_complete()
        is_next = self.cycle is not before  # it was sent before the reply of the first
        self._allow(REPLY_S if is_next else IDLE_S, is_idle=not is_next)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for."""
        if self._limit is not None:
            self._limit.cancel()
        super().connection_lost(exc)

    def _allow(self, seconds: float, *, is_idle: bool = False) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._is_idle = is_idle
        self._limit = self.loop.call_later(seconds, self.transport.abort)
