"""The time limits of connections: for clients that send or read slowly, or do nothing.

All connections are checked each second, which is cheaper than a timer per request.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import Any
from weakref import WeakKeyDictionary

import anyio
import anyio.lowlevel

from llamastack.provider.errors import RequestTimeoutError
from llamastack_server.connection import Connection
from llamastack_server.settings import ServerConfig

_LOGGER = logging.getLogger("llamastack.server")
_LOOKS_PER_LIMIT = 4
_SHORTEST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_AT_ONCE = 500
_SLOWEST = (
    100.0  # bytes per second # For the rest of a body that nobody reads, because its request is answered already.
)
_LONGEST_REST_S = 30.0


class _Wait(Enum):
    """What a connection waits for."""

    FIRST_HEAD = "the first byte"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"
    REST = "the rest of a body whose request is answered"
    NEXT_HEAD = "another request"
    READER = "the client to read its reply"


@dataclass
class _Watched:
    """One wait of a connection. began, moved: when it was first seen, and when bytes were last transferred. done, then:
    bytes transferred when it was last seen, and when it began.
    """

    wait: _Wait
    request: int
    began: float
    moved: float
    done: int
    then: int

    def go_on(self, wait: _Wait) -> None:
        """Whether the time limit still runs for what the connection waits for now."""
        self.wait = wait

    def is_over(self, limit: float, done: int, now: float) -> bool:
        """Whether the client was too slow. done: bytes transferred until now."""
        lasted = now - self.began
        if self.wait not in (_Wait.BODY, _Wait.READER):
            return lasted >= limit
        if done != self.done:
            self.done, self.moved = done, now
        if lasted >= limit and done - self.then >= _SLOWEST * lasted:
            self.began, self.then = now, done  # fast enough: start again from here
            return False
        return lasted >= limit or now - self.moved >= limit


class SlowClients:
    """Ends connections whose clients take longer than `settings` allow."""

    def __init__(self, settings: ServerConfig) -> None:
        self._watched: WeakKeyDictionary[Connection, _Watched] = WeakKeyDictionary()
        self._limits: dict[_Wait, float | None] = {
            _Wait.FIRST_HEAD: settings.head_timeout_s,
            _Wait.HEAD: settings.head_timeout_s,
            _Wait.BODY: settings.body_timeout_s,
            _Wait.REST: _LONGEST_REST_S,
            _Wait.NEXT_HEAD: settings.idle_timeout_s,
            _Wait.READER: settings.unread_timeout_s,
        }
        shortest = min(limit for limit in self._limits.values() if limit)
        self._pause_s = min(max(shortest / _LOOKS_PER_LIMIT, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S)

    async def watch(self, connections: Collection[Any]) -> None:
        """Check all connections each second."""
        while True:
            await anyio.sleep(self._pause_s)
            for place, connection in enumerate([*connections]):
                if place % _AT_ONCE == _AT_ONCE - 1:
                    await anyio.lowlevel.checkpoint()
                if isinstance(connection, Connection) and not connection.lost:
                    self._look(connection, time.monotonic())

    def _look(self, connection: Connection, now: float) -> None:
        wait = _wait_of(connection)
        limit = None if wait is None else self._limits[wait]
        if wait is None or not limit:
            self._watched.pop(connection, None)
            return
        done = connection.taken_bytes if wait is _Wait.READER else connection.body_bytes
        watched = self._watched.get(connection)
        if watched is not None and watched.wait is _Wait.FIRST_HEAD and wait is _Wait.HEAD:
            watched.go_on(wait)
        if watched is None or watched.wait is not wait or watched.request != connection.requests:
            self._watched[connection] = _Watched(wait, connection.requests, now, now, done, done)
        elif watched.is_over(limit, done, now):
            del self._watched[connection]
            _end(connection, wait, limit)


def _wait_of(connection: Connection) -> _Wait | None:
    """None if it is the server's turn, or if the connection is ending."""
    if connection.unsent_bytes:
        return _Wait.READER
    if connection.refused:
        return None
    if not connection.in_head:
        if connection.is_idle:
            return _Wait.REST
        # If the server itself has stopped reading, the client cannot send.
        return None if connection.pipeline or connection.flow.read_paused else _Wait.BODY
    if not connection.is_idle:
        return None
    if connection.head_bytes:
        return _Wait.HEAD
    return _Wait.NEXT_HEAD if connection.requests else _Wait.FIRST_HEAD


def _end(connection: Connection, wait: _Wait, limit: float) -> None:
    if wait is _Wait.HEAD:
        connection.refuse(
            RequestTimeoutError(f"the head of the request did not come within {limit:g} s (server.head_timeout_s)")
        )
    elif wait is _Wait.BODY:
        connection.refuse(
            RequestTimeoutError(
                f"for {limit:g} s the body of the request came at less than {_SLOWEST:g} bytes a second, or not at all "
                "(server.body_timeout_s)"
            )
        )
    elif wait is _Wait.READER:
        _LOGGER.warning("a client has read nothing of its reply for %g s: its connection is closed", limit)
        connection.transport.abort()
    else:
        connection.transport.close()
