"""A TCP proxy that breaks connections on demand: it refuses, delays, stalls, cuts and resets."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

_BLOCK = 65536


@dataclass
class FaultProxy:
    """Hands bytes on between its clients and `target`.

    The faults count for connections made after they are set; each is about the bytes of the answers. delay_s: seconds
    before the first one. stall_after, cut_after, reset_after: how many are handed on before nothing more comes, the
    connection is closed in order, or it is reset.
    """

    target: str
    delay_s: float = 0.0
    stall_after: int | None = None
    cut_after: int | None = None
    reset_after: int | None = None
    connections: int = 0
    url: str = ""
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _server: asyncio.Server | None = None
    _port: int = 0
    _halves: set[asyncio.Task[None]] = field(default_factory=set)

    def refuse(self) -> None:
        """Close every connection and refuse new ones, as a host does where nothing listens."""
        self._run(self._close())

    def restore(self) -> None:
        """Listen again, at the same address, and without faults."""
        self.delay_s, self.stall_after, self.cut_after, self.reset_after = 0.0, None, None, None
        if self._server is None:
            self._run(self._listen())

    def drop_idle(self) -> None:
        """Close the connections that are open now; new ones are taken."""
        self._run(self._drop())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        await self._drop()

    async def _drop(self) -> None:
        # The halves, not the connections: asyncio takes a cancelled one for a fault of the server.
        for half in list(self._halves):
            half.cancel()
        while self._halves:
            await asyncio.sleep(0.001)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        parts = urlsplit(self.target)
        try:
            inner, out = await asyncio.open_connection(parts.hostname, parts.port)
        except OSError:
            writer.close()
            return
        halves = {asyncio.create_task(_copy(reader, out)), asyncio.create_task(self._answer(inner, writer))}
        self._halves |= halves
        # When either side has ended, so has the connection.
        await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
        for half in halves:
            half.cancel()
        await asyncio.wait(halves)
        for end in (writer, out):
            end.close()
        self._halves -= halves

    async def _answer(self, inner: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = min((n for n in (self.stall_after, self.cut_after, self.reset_after) if n is not None), default=None)
        stalls, resets = self.stall_after is not None, self.reset_after is not None
        first = True
        while left is None or left > 0:
            block = await inner.read(_BLOCK if left is None else min(left, _BLOCK))
            if not block:
                return
            if first and self.delay_s:
                await asyncio.sleep(self.delay_s)
            first = False
            left = None if left is None else left - len(block)
            writer.write(block)
            try:
                await writer.drain()
            except ConnectionError:
                return
        if stalls:
            await asyncio.Event().wait()
        if resets:
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while block := await reader.read(_BLOCK):
            writer.write(block)
            await writer.drain()
    except ConnectionError:
        return


@contextmanager
def fault_proxy(target: str) -> Iterator[FaultProxy]:
    """A proxy before the server at `target`, without faults until one is set."""
    proxy = FaultProxy(target)
    thread = threading.Thread(target=proxy._loop.run_forever, name="fault-proxy")
    thread.start()
    try:
        proxy.restore()
        yield proxy
        proxy.refuse()
    finally:
        proxy._loop.call_soon_threadsafe(proxy._loop.stop)
        thread.join(10)
        proxy._loop.close()
