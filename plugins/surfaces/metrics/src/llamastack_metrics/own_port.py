"""Metrics on a port of their own."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import uvicorn

from llamastack.provider.routes import AsgiApp
from llamastack_metrics.file_lock import FileLock
from llamastack_metrics.timed_connection import IDLE_S, TimedConnection

_LOGGER = logging.getLogger("llamastack.metrics")
_AGAIN_S = 1.0
_BACKLOG = 16
_MOST_CONNECTIONS = 32
_DRAIN_S = 1


class PortError(Exception):
    """The port of the metrics cannot be listened on."""


class OwnPort:
    """Serves `app` on one port. Of several workers one has the port; if it ends, another one takes it.

    The port is not shared, so that another server on it is an error.

    lock: what the worker with the port holds; None if there is one process.
    """

    def __init__(self, host: str, port: int, app: AsgiApp, lock: Path | None) -> None:
        self._host = host
        self._port = port
        self._app = app
        self._lock = None if lock is None else FileLock(lock)

    async def take(self) -> socket.socket | None:
        """The listening socket; None if another worker has the port. Raises PortError."""
        return await anyio.to_thread.run_sync(self._take)

    def _take(self) -> socket.socket | None:
        if self._lock is not None and not self._lock.take():
            return None
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)[0]
            listening = socket.socket(family, kind, protocol)
            try:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind(address)
                listening.listen(_BACKLOG)
            except BaseException:
                listening.close()
                raise
        except OSError as error:
            self._release()
            raise PortError(f"metrics: cannot listen on {self._host}:{self._port}: {error.strerror}") from None
        return listening

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    async def run(self, listening: socket.socket | None) -> None:
        """Serve until it is cancelled. listening: None: wait until the port is free."""
        failed = False
        while listening is None:
            await anyio.sleep(_AGAIN_S)
            try:
                listening = await self.take()
            except PortError as error:
                if not failed:
                    _LOGGER.error("%s; it is tried again every second", error)  # noqa: TRY400
                failed = True
        try:
            await self._serve(listening)
        finally:
            listening.close()
            self._release()

    async def _serve(self, listening: socket.socket) -> None:
        config = uvicorn.Config(
            self._app,
            http=TimedConnection,
            ws="none",
            lifespan="off",
            proxy_headers=False,
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_keep_alive=int(IDLE_S),
            timeout_graceful_shutdown=_DRAIN_S,
        )
        server = _Server(config)
        finished = anyio.Event()

        async def serve() -> None:
            try:
                with anyio.CancelScope(shield=True):  # if cancelled half-way, uvicorn would leave connections open
                    await server.serve(sockets=[listening])
            finally:
                finished.set()

        async with anyio.create_task_group() as group:
            group.start_soon(serve)
            try:
                await finished.wait()
            finally:
                server.should_exit = True


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are for the stack's own server."""
        yield
