"""The HTTP client that providers and our own client share."""

from __future__ import annotations

import functools
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.request import getproxies

import httpx

from llamastack.provider.bounded import ACCEPTED, AnswerLimits
from llamastack.provider.errors import (
    BackendError,
    LlamaStackError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    ServerBusyError,
)
from llamastack.provider.shortage import SHORTAGE, chain_of, is_shortage
from llamastack.provider.transports import fresh_connections, guard

if TYPE_CHECKING:
    import aiohttp
    from httpx_aiohttp import AiohttpTransport

_T = TypeVar("_T")
_AT_ONCE_S = 0.1
_BLOCK = 2**18  # bytes
_NOTHING_KEPT = httpx.Limits(max_connections=None, max_keepalive_connections=0)
_OWN_WAYS = {"transport", "mounts", "proxy", "cert"}


def http_client(
    *, uds: str | None = None, answer_limits: AnswerLimits | None = None, **options: Any
) -> httpx.AsyncClient:
    """An `httpx.AsyncClient` for one backend: kept for the life of a provider instance, closed with it.

    uds: path of a Unix socket to speak through.
    answer_limits: how long answers may be; by default as `AnswerLimits` says.
    options: as `httpx.AsyncClient` takes them.

    Where the package httpx-aiohttp is installed (extra `server`), its transport is used: httpx's own searches its whole
    pool at every request. Not where a proxy or a client certificate is asked for, by options or by the environment:
    httpx does these itself.
    """
    # What one client's call is answered must not go out with another's.
    options.setdefault("cookies", CookieJar(DefaultCookiePolicy(allowed_domains=[])))
    options["headers"] = {"Accept-Encoding": ACCEPTED, **dict(options.get("headers") or {})}
    makes_own = "transport" not in options

    def make(*, kept: bool) -> httpx.AsyncClient:
        own = dict(options)
        transport = aiohttp_transport({"uds": uds, **options})
        if not kept:
            own["limits"] = _NOTHING_KEPT
            transport = transport and aiohttp_transport({"uds": uds, **options}, kept=False)
        if transport is not None:
            own["transport"] = transport
        elif uds is not None and makes_own:
            own["transport"] = httpx.AsyncHTTPTransport(uds=uds, limits=own.get("limits") or httpx.Limits())
        return httpx.AsyncClient(**own)

    spare = (lambda: make(kept=False)) if makes_own else None
    return guard(make(kept=True), answer_limits or AnswerLimits(), spare)


def aiohttp_transport(options: Mapping[str, Any], *, kept: bool = True) -> AiohttpTransport | None:
    """The transport that `http_client` takes for these options of its; None where that is httpx's own.

    kept: whether connections are kept for further requests.
    """
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
    transport = AiohttpTransport(verify=authorities() if verify is True else verify)
    pool: dict[str, Any] = {"limit": limits.max_connections or 0}
    pool |= {"keepalive_timeout": limits.keepalive_expiry} if kept else {"force_close": True}

    def session() -> aiohttp.ClientSession:
        connector: aiohttp.BaseConnector = (
            aiohttp.TCPConnector(ssl=transport.ssl_context, **pool)
            if uds is None
            else aiohttp.UnixConnector(path=uds, **pool)
        )
        # Its own jar would keep cookies beside httpx's. What it unpacks it unpacks all at once.
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            request_class=_request_in_blocks(),
        )

    transport.client = session
    return transport


@functools.cache
def _request_in_blocks() -> type[aiohttp.ClientRequest]:
    """aiohttp's request, which writes a large body in blocks, as fast as they are taken; its own writes it at once."""
    import aiohttp
    from aiohttp.payload import BytesPayload

    class InBlocks(BytesPayload):
        def __init__(self, body: bytes) -> None:
            super().__init__(b"")  # else it warns of what is not done here
            self._value = body
            self._size = len(body)

        async def write_with_length(self, writer: Any, content_length: int | None) -> None:
            body = memoryview(self._value)[:content_length]
            for at in range(0, len(body), _BLOCK):
                await writer.write(body[at : at + _BLOCK])

        async def write(self, writer: Any) -> None:
            await self.write_with_length(writer, None)

    class Request(aiohttp.ClientRequest):
        def update_body_from_data(self, body: Any, _stacklevel: int = 3) -> None:
            large = isinstance(body, bytes) and len(body) > _BLOCK
            super().update_body_from_data(InBlocks(body) if large else body, _stacklevel)

    return Request


def authorities(ca_file: Path | None = None) -> ssl.SSLContext:
    """Those that a certificate must be of: the ones in the environment, or else the usual; and those of `ca_file`.

    Raises ValueError for a file that cannot be read, or that holds no certificates in PEM.
    """
    return _read_authorities(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"), ca_file)


@functools.cache
def _read_authorities(file: str | None, folder: str | None, further: Path | None) -> ssl.SSLContext:
    """One for all clients: reading the certificates of a hundred authorities takes 20 ms each time."""
    context = httpx.create_ssl_context()
    if further is not None:
        check_authorities(further)
        context.load_verify_locations(cafile=further)
    return context


def check_authorities(ca_file: Path) -> None:
    """Raises ValueError for a file of certificates that cannot be used, saying why."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=ca_file)
    except ssl.SSLError:
        raise ValueError(f"{ca_file} holds no certificates in PEM") from None
    except OSError as error:
        raise ValueError(f"{ca_file} cannot be read: {os.strerror(error.errno or 0).lower()}") from None


def is_http_error(error: BaseException) -> bool:
    """Whether `error` is an HTTPError of httpx or of httpx2, its successor, which some SDKs use and which names its
    errors alike.
    """
    return "HTTPError" in _kinds(error)


def _kinds(error: BaseException) -> set[str]:
    kinds = type(error).__mro__
    return {kind.__name__ for kind in kinds if kind.__module__.partition(".")[0] in ("httpx", "httpx2")}


def error_class_of(error: BaseException) -> type[LlamaStackError]:
    """Which of the error family a failed exchange is: out of reach, too slow, or not understood; or our own fault.

    error: one that `is_http_error`.
    """
    kinds = _kinds(error)
    if is_shortage(error):
        return ServerBusyError
    if tls_error_of(error) is not None:
        return ProviderUnavailableError
    if _cut_short(error) or _no_http(error):
        return BackendError
    # A connection that is refused comes out of the aiohttp transport as a ConnectTimeout.
    if kinds & {"NetworkError", "ConnectTimeout"} or _closed_at_once(error):
        return ProviderUnavailableError
    if "TimeoutException" in kinds:
        return ProviderTimeoutError
    return BackendError


async def once_more_if_dropped(call: Callable[[], Awaitable[_T]], dropped: Callable[[Exception], bool]) -> _T:
    """`call`, and again on a fresh connection where it met a kept one that the backend has closed meanwhile.

    Such a call fails at once. One that fails later may have begun at the backend and is not made again. The time that
    this thread computes meanwhile does not count: with many calls at once, each hears late of its connection.
    """
    started = time.monotonic() - time.thread_time()
    try:
        return await call()
    except Exception as error:
        if not dropped(error) or time.monotonic() - time.thread_time() - started > _AT_ONCE_S:
            raise
    with fresh_connections():
        return await call()


def was_dropped(error: Exception) -> bool:
    """Whether the connection of a request ended before the answer began."""
    cause = error.__cause__
    if isinstance(cause, Exception) and type(cause).__module__.startswith("aiohttp"):
        kind = type(cause).__name__
        return kind in ("ClientOSError", "ClientConnectionResetError") or _closed_at_once(error)
    return bool(_kinds(error) & {"ReadError", "WriteError"}) or _closed_at_once(error)


def _closed_at_once(error: BaseException) -> bool:
    """Whether the connection was closed, in order, without a byte of an answer."""
    cause = error.__cause__
    if type(cause).__name__ == "ServerDisconnectedError":
        return isinstance(getattr(cause, "message", None), str)  # else it is the part of the head that has come
    return "RemoteProtocolError" in _kinds(error) and "without sending a response" in str(error)


def _no_http(error: BaseException) -> bool:
    """Whether what came is no HTTP, or only the beginning of it."""
    if "RemoteProtocolError" in _kinds(error):
        return error.__cause__ is not None and not _closed_at_once(error)
    return type(error.__cause__).__name__ == "ServerDisconnectedError" and not _closed_at_once(error)


def _cut_short(error: BaseException) -> bool:
    """Whether an answer ended, in order, before it was complete. The aiohttp transport makes a ReadError of that."""
    if "RemoteProtocolError" in _kinds(error):
        return "without sending complete message body" in str(error)
    return type(error.__cause__).__name__ == "ClientPayloadError" and system_error_of(error) is None


def system_error_of(error: BaseException) -> OSError | None:
    """The operating system's own error underneath; the transports word it each in their own way."""
    found = (one for one in chain_of(error) if isinstance(one, OSError) and not isinstance(one, ssl.SSLError))
    return next((one for one in found if _number_of(one) is not None), None)


def _number_of(error: OSError) -> int | None:
    number = getattr(error, "errno", None)
    return number if isinstance(number, int) else None


def tls_error_of(error: BaseException) -> ssl.SSLError | None:
    """The TLS error underneath that says most. It is an OSError, too, with a number of its own."""
    # That TLS waits for bytes is no failure of its own: what was waited for has not come.
    waits = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
    found = [one for one in chain_of(error) if isinstance(one, ssl.SSLError) and not isinstance(one, waits)]
    return next((one for one in found if _tls_words(one)), found[0] if found else None)


# OpenSSL's words for what comes of a port where no TLS is spoken.
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL")


def _tls_words(error: ssl.SSLError) -> str:
    """Why, in a few words; "" where it does not say. aiohttp's errors are SSLErrors without their attributes."""
    verify, reason = getattr(error, "verify_message", None), getattr(error, "reason", None)
    if verify:
        return str(verify)
    if reason in _NO_TLS:
        return f"no TLS is spoken there: {reason.lower().replace('_', ' ')}"
    return str(reason).lower().replace("_", " ") if reason else ""


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
    if is_shortage(error):
        return f"{SHORTAGE}, so {where} cannot be reached"
    return f"{_words(error)} at {where}"


def _words(error: BaseException) -> str:
    if is_shortage(error):
        return SHORTAGE
    tls = tls_error_of(error)
    if tls is not None:
        return f"TLS failed ({_tls_words(tls) or 'it does not say why'})"
    if _cut_short(error):
        return "the answer was cut short"
    if _closed_at_once(error):
        return "the connection was closed without an answer"
    if _no_http(error):
        return "something else than HTTP was answered"
    cause = system_error_of(error)
    if cause is None or cause.errno is None:
        of_aiohttp = type(error.__cause__).__module__.startswith("aiohttp")  # most of its errors become this one
        if "ConnectTimeout" in _kinds(error) and of_aiohttp and not isinstance(error.__cause__, TimeoutError):
            return "the connection was lost"
        if "ConnectTimeout" in _kinds(error) or type(error.__cause__).__name__ == "ConnectionTimeoutError":
            return "no connection was made in time"
        return str(error) or type(error).__name__
    if isinstance(cause, socket.gaierror) or cause.errno < 0:  # the numbers of getaddrinfo
        return "host name not known"
    return os.strerror(cause.errno).lower()
