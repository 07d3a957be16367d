"""Run a stack behind uvicorn: bind first, start, serve, drain, close."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable

import anyio
import uvicorn

from llamastack.server.app import create_app
from llamastack.stack import Stack

_BACKLOG = 2048


class BindError(Exception):
    """The address cannot be listened on."""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises BindError that says whether the port is in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a host name"
        raise BindError(f"host '{host}' cannot be resolved: {reason}") from None
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise BindError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    listening.set_inheritable(True)
    return listening


def url_of(listening: socket.socket) -> str:
    """The URL that a socket is reached by."""
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._on_ready()


async def serve(stack: Stack, listening: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve a running stack until SIGTERM or SIGINT, then let requests in flight finish.

    on_ready: called when requests are accepted.
    """
    settings = stack.config.run.server
    config = uvicorn.Config(
        create_app(stack),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
    )
    server = _Server(config, on_ready)
    finished = anyio.Event()

    async def run() -> None:
        try:
            # Cancelled half-way, uvicorn would leave its connections and the socket open.
            with anyio.CancelScope(shield=True):
                await server.serve(sockets=[listening])
        finally:
            finished.set()

    # uvicorn sets these handlers itself a moment later, and raises the signal once more when it has put them back: one
    # that comes in between must stop the server too, one that comes after must not stop the process half-closed.
    before = {number: signal.signal(number, server.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            try:
                await finished.wait()
            finally:
                server.should_exit = True
    finally:
        listening.close()
        for number, handler in before.items():
            signal.signal(number, handler)
