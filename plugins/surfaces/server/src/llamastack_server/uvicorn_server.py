"""Run a stack behind uvicorn: bind first, start, serve, drain, close."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import uvicorn

from llamastack.provider.descriptor_shortage import SHORTAGE, is_shortage
from llamastack.stack import Stack
from llamastack_server.app import create_app
from llamastack_server.connection import Connection
from llamastack_server.hosts import is_loopback
from llamastack_server.settings import ServerConfig
from llamastack_server.slow_clients import SlowClients

_LOGGER = logging.getLogger("llamastack.server")
_BACKLOG = 2048
_GARBAGE_AFTER = 10_000, 10  # the numbers of `gc.set_threshold`


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


def share(listening: socket.socket) -> socket.socket:
    """The socket from which `own_socket` makes that of each worker process; takes over `listening`.

    On Linux the result reserves the port and does not listen. Each worker has its own listening socket on that port,
    and the kernel spreads connections evenly. With one shared socket, the worker that wakes up first often takes all
    connections. When a worker dies, its socket closes, so no connection waits there. Other systems do not spread
    connections, so all workers listen on one socket.
    """
    if sys.platform != "linux":
        return listening
    # Set only now, so that `bind` fails if another server has the port.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        reserved = _beside(listening)
    finally:
        listening.close()
    # Otherwise another server could take the port while no worker listens.
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return reserved


def own_socket(shared: socket.socket) -> socket.socket:
    """A worker's own socket, which listens once `serve` does; takes over its copy of the socket from `share`."""
    if sys.platform != "linux":
        return shared
    with shared:
        return _beside(shared)


def _beside(other: socket.socket) -> socket.socket:
    """A socket bound to the address that `other` is bound to."""
    made = socket.socket(other.family, other.type, other.proto)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(other.getsockname())
    except BaseException:
        made.close()
        raise
    return made


def url_of(listening: socket.socket) -> str:
    """The URL of a socket."""
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"


def raise_file_limit() -> None:
    """Raise the limit of open files as far as allowed: each forwarded request has two sockets.

    The usual default of 1024 exists for programs that use `select`; the server does not.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    with suppress(OSError, ValueError):  # some systems have a lower limit of their own
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        # The objects that exist now stay: searching them for garbage would take a tenth of each request, and searching
        # the new ones after every few requests a twentieth.
        # perf: ready. They are not searched before: that takes a tenth of a start, and finds nothing.
        gc.freeze()
        gc.set_threshold(*_GARBAGE_AFTER)
        self._on_ready()


def _tell_shortage(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log that a connection cannot be accepted for lack of a file descriptor; the loop retries in a second."""
    error = context.get("exception")
    if isinstance(error, OSError) and is_shortage(error) and "accept" in context.get("message", ""):
        _LOGGER.error("%s, so new connections wait", SHORTAGE)
    else:
        loop.default_exception_handler(context)


async def serve(stack: Stack, listening: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve a running stack until SIGTERM or SIGINT, then let requests in flight finish.

    on_ready: called when requests are accepted. Raises DiscoveryError and PluginError if plugins conflict.
    """
    settings = stack.config.section("server", ServerConfig)
    try:
        app = create_app(stack, loopback=is_loopback(listening.getsockname()[0]))
    except BaseException:
        listening.close()
        raise
    connection: Any = partial(Connection, settings=settings, format_for=app.format_for)
    config = uvicorn.Config(
        app,
        http=connection,
        ws="none",
        lifespan="off",
        proxy_headers=False,  # nothing here uses the client's address
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
    )
    server = _Server(config, on_ready)
    finished = anyio.Event()

    async def run() -> None:
        try:
            # If cancelled half-way, uvicorn would leave its connections and the socket open.
            with anyio.CancelScope(shield=True):
                async with anyio.create_task_group() as beside:
                    beside.start_soon(SlowClients(settings).watch, server.server_state.connections)
                    await server.serve(sockets=[listening])
                    beside.cancel_scope.cancel()
        finally:
            finished.set()

    loop = asyncio.get_running_loop()
    handled = loop.get_exception_handler()
    loop.set_exception_handler(_tell_shortage)
    # uvicorn sets these handlers itself a moment later, and raises the signal again after it has restored them. A
    # signal before that must stop the server, too, and a later one must not stop the process half-closed.
    before = {number: signal.signal(number, server.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
    thresholds = gc.get_threshold()
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            try:
                await finished.wait()
            finally:
                server.should_exit = True
    finally:
        loop.set_exception_handler(handled)
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        listening.close()
        for number, handler in before.items():
            signal.signal(number, handler)
