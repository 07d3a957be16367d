"""The HTTP client that providers and our own client share."""

from __future__ import annotations

import functools
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.request import getproxies

import anyio
import httpx

from llamastack.provider.errors import (
    BackendError,
    LlamaStackError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)

if TYPE_CHECKING:
    from httpx_aiohttp import AiohttpTransport

_T = TypeVar("_T")
_AT_ONCE_S = 0.1
_MOMENT_S = 0.01
_OWN_WAYS = {"transport", "mounts", "proxy", "cert"}


def http_client(*, uds: str | None = None, **options: Any) -> httpx.AsyncClient:
    """An `httpx.AsyncClient` for one backend: kept for the life of a provider instance, closed with it.

    uds: path of a Unix socket to speak through.
    options: as `httpx.AsyncClient` takes them.

    Where the package httpx-aiohttp is installed (extra `server`), its transport is used: httpx's own searches its whole
    pool at every request. Not where a proxy or a client certificate is asked for, by options or by the environment:
    httpx does these itself.
    """
    transport = aiohttp_transport({"uds": uds, **options})
    if transport is not None:
        options["transport"] = transport
    # What one client's call is answered must not go out with another's.
    options.setdefault("cookies", CookieJar(DefaultCookiePolicy(allowed_domains=[])))
    if uds is not None and "transport" not in options:
        options["transport"] = httpx.AsyncHTTPTransport(uds=uds)
    return httpx.AsyncClient(**options)


def aiohttp_transport(options: Mapping[str, Any]) -> AiohttpTransport | None:
    """The transport that `http_client` takes for these options of its; None where that is httpx's own."""
    uds = options.get("uds")
    if _OWN_WAYS & options.keys() or (uds is None and getproxies()):
        return None
    try:
        import aiohttp
        from httpx_aiohttp import AiohttpTransport
    except ImportError:
        return None
    limits = options.get("limits") or httpx.Limits()
    verify = options.get("verify", True)
    transport = AiohttpTransport(verify=_authorities() if verify is True else verify)

    def session() -> aiohttp.ClientSession:
        limit, kept_s = limits.max_connections or 0, limits.keepalive_expiry
        connector: aiohttp.BaseConnector = (
            aiohttp.TCPConnector(ssl=transport.ssl_context, limit=limit, keepalive_timeout=kept_s)
            if uds is None
            else aiohttp.UnixConnector(path=uds, limit=limit, keepalive_timeout=kept_s)
        )
        # Its own jar would keep cookies beside httpx's.
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    transport.client = session
    return transport


def _authorities() -> ssl.SSLContext:
    """Those that a certificate must be of: the ones in the environment, or else the usual."""
    return _read_authorities(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@functools.cache
def _read_authorities(file: str | None, folder: str | None) -> ssl.SSLContext:
    """One for all clients: reading the certificates of a hundred authorities takes 20 ms each time."""
    return httpx.create_ssl_context()


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


async def once_more_if_dropped(call: Callable[[], Awaitable[_T]], dropped: Callable[[Exception], bool]) -> _T:
    """`call`, and again where it met a kept connection that the backend has closed meanwhile.

    Such a call fails at once. One that fails later may have begun at the backend and is not made again.
    """
    started = time.monotonic()
    try:
        return await call()
    except Exception as error:
        if not dropped(error) or time.monotonic() - started > _AT_ONCE_S:
            raise
    # In a moment the loop knows which other kept connections are closed, too.
    await anyio.sleep(_MOMENT_S)
    return await call()


def was_dropped(error: Exception) -> bool:
    """Whether the connection of a request ended before the answer began."""
    if isinstance(error.__cause__, Exception) and type(error.__cause__).__module__.startswith("aiohttp"):
        return type(error.__cause__).__name__ in (
            "ServerDisconnectedError",
            "ClientOSError",
            "ClientConnectionResetError",
        )
    return bool(_kinds(error) & {"RemoteProtocolError", "ReadError", "WriteError"})


def _cut_short(error: BaseException) -> bool:
    """Whether an answer ended, in order, before it was complete. The aiohttp transport makes a ReadError of that."""
    return type(error.__cause__).__name__ == "ClientPayloadError" and _system_error(error) is None


def _system_error(error: BaseException) -> OSError | None:
    """The operating system's own error underneath; the transports word it each in their own way."""
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OSError) and cause.errno is not None):
        cause = cause.__cause__ or cause.__context__
    return cause


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    """The TLS error underneath. It is an OSError, too, with a number of its own."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
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
    """The same words as `reason_of_http_error` for the error of any SDK, the operating system's somewhere underneath.

    where: scheme, host and port of the backend.
    """
    return f"{_words(error)} at {where}"


def _words(error: BaseException) -> str:
    tls = _tls_error(error)
    if tls is not None:
        return f"TLS failed ({getattr(tls, 'verify_message', None) or tls.reason or tls})"
    cause = _system_error(error)
    if cause is None or cause.errno is None:
        return "the answer was cut short" if _cut_short(error) else str(error) or type(error).__name__
    if isinstance(cause, socket.gaierror) or cause.errno < 0:  # the numbers of getaddrinfo
        return "host name not known"
    return os.strerror(cause.errno).lower()
