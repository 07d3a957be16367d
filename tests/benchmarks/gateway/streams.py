"""Streams one at a time, and many that say nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TypeVar

import anyio
from payloads import FIRST_WORD
from raw_http import Connection, request_bytes
from servers import Request

T = TypeVar("T")
_MARKER = FIRST_WORD.encode()
_OPENED_AT_ONCE = 20
_SETTLE_S = 1.0
_UVLOOP = {"use_uvloop": True}


def first_byte_ms(port: int, request: Request, count: int) -> float:
    """Median time from sending a request to the first word of its stream, one stream after the other, in ms.

    The head of the reply, and events without text, do not count. Raises ReplyError, OSError.
    """
    return anyio.run(_first_byte_ms, port, request, count, backend_options=_UVLOOP)


async def _first_byte_ms(port: int, request: Request, count: int) -> float:
    data = request_bytes(request, port)
    took = []
    async with Connection(port) as connection:
        for _ in range(count + 2):
            started = time.perf_counter()
            await connection.send(data)
            await connection.until(_MARKER)
            took.append(time.perf_counter() - started)
            await connection.whole()
    return statistics.median(took[2:]) * 1000  # the first ones open connections


def while_idle(port: int, request: Request, count: int, look: Callable[[], T]) -> T:
    """Open so many streams, read the first word of each, and return what `look` finds while all are open.

    Raises ReplyError, OSError.
    """
    return anyio.run(_while_idle, port, request, count, look, backend_options=_UVLOOP)


async def _while_idle(port: int, request: Request, count: int, look: Callable[[], T]) -> T:
    data = request_bytes(request, port)
    async with AsyncExitStack() as opened:
        connections = [Connection(port) for _ in range(count)]
        limiter = anyio.CapacityLimiter(_OPENED_AT_ONCE)

        async def begin(connection: Connection) -> None:
            async with limiter:
                await opened.enter_async_context(connection)
                await connection.send(data)
                await connection.until(_MARKER)

        async with anyio.create_task_group() as tasks:
            for connection in connections:
                tasks.start_soon(begin, connection)
        await anyio.sleep(_SETTLE_S)
        return look()
