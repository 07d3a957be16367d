"""The HTTP client that providers and our own client share."""

from __future__ import annotations

import os
import socket
from typing import Any
from urllib.request import getproxies

import httpx

from llamastack.provider.errors import (
    BackendError,
    LlamaStackError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)

_OWN_WAYS = {"transport", "mounts", "proxy", "cert"}


def http_client(*, uds: str | None = None, **options: Any) -> httpx.AsyncClient:
    """An `httpx.AsyncClient` for one backend: kept for the life of a provider instance, closed with it.

    uds: path of a Unix socket to speak through. options: as `httpx.AsyncClient` takes them.

    Where the package httpx-aiohttp is installed (extra `server`), its transport is used: httpx's own searches its whole
    pool at every request. Not where a proxy or a client certificate is asked for, by options or by the environment:
    httpx does these itself.
    """
    if not _OWN_WAYS & options.keys() and (uds is not None or not getproxies()):
        try:
            from httpx_aiohttp import AiohttpTransport
        except ImportError:
            pass
        else:
            options["transport"] = AiohttpTransport(
                uds=uds,
                verify=options.get("verify", True),
                limits=options.get("limits", httpx.Limits(max_connections=1000, max_keepalive_connections=100)),
            )
    if uds is not None and "transport" not in options:
        options["transport"] = httpx.AsyncHTTPTransport(uds=uds)
    return httpx.AsyncClient(**options)


def is_http_error(error: BaseException) -> bool:
    """Whether `error` is an HTTPError of httpx or of httpx2, its successor, which some SDKs use and which names its
    errors alike.
    """
    return "HTTPError" in _kinds(error)


def _kinds(error: BaseException) -> set[str]:
    kinds = type(error).__mro__
    return {kind.__name__ for kind in kinds if kind.__module__.partition(".")[0] in ("httpx", "httpx2")}


def error_class_of(error: BaseException) -> type[LlamaStackError]:
    """Which of the error family a failed exchange is: out of reach, too slow, or not understood.

    error: one that `is_http_error`.
    """
    kinds = _kinds(error)
    if _cut_short(error):
        return BackendError
    # A connection that is refused comes out of the aiohttp transport as a ConnectTimeout.
    if kinds & {"NetworkError", "ConnectTimeout"}:
        return ProviderUnavailableError
    if "TimeoutException" in kinds:
        return ProviderTimeoutError
    return BackendError


def was_dropped(error: httpx.HTTPError) -> bool:
    """Whether a request met a connection that was open before and is closed now, so that nobody has answered it."""
    if isinstance(error.__cause__, Exception) and type(error.__cause__).__module__.startswith("aiohttp"):
        return type(error.__cause__).__name__ in (
            "ServerDisconnectedError",
            "ClientOSError",
            "ClientConnectionResetError",
        )
    return isinstance(error, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError)


def _cut_short(error: BaseException) -> bool:
    """Whether an answer ended, in order, before it was complete. The aiohttp transport makes a ReadError of that."""
    return type(error.__cause__).__name__ == "ClientPayloadError" and _system_error(error) is None


def _system_error(error: BaseException) -> OSError | None:
    """The operating system's own error underneath; the transports word it each in their own way."""
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OSError) and cause.errno is not None):
        cause = cause.__cause__ or cause.__context__
    return cause


def reason_of_http_error(error: Any) -> str:
    """What failed and where, in a few words: `connection refused at http://gpu-2:8080`."""
    try:
        url = error.request.url
    except RuntimeError:
        return _words(error)
    return reason_at(error, f"{url.scheme}://{url.netloc.decode()}")


def reason_at(error: BaseException, where: str) -> str:
    """The same for the error of any SDK, with the operating system's own somewhere underneath.

    where: scheme, host and port of the backend.
    """
    return f"{_words(error)} at {where}"


def _words(error: BaseException) -> str:
    cause = _system_error(error)
    if cause is None or cause.errno is None:
        return "the answer was cut short" if _cut_short(error) else str(error) or type(error).__name__
    if isinstance(cause, socket.gaierror) or cause.errno < 0:  # the numbers of getaddrinfo
        return "host name not known"
    return os.strerror(cause.errno).lower()
