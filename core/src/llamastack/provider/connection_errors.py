"""Errors of HTTP clients in plain words, and which of the error family each is.

It knows them by their names, so that a stack of in-process providers loads no HTTP client.
"""

from __future__ import annotations

import os
import socket
import ssl

from llamastack.provider.descriptor_shortage import SHORTAGE, chain_of, is_shortage
from llamastack.provider.errors import (
    BackendError,
    LlamaStackError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    ServerBusyError,
)


def is_http_error(error: BaseException) -> bool:
    """Whether `error` is an HTTPError of httpx or of httpx2, its successor, which some SDKs use and which names its
    errors alike.
    """
    return "HTTPError" in error_kinds(error)


def error_kinds(error: BaseException) -> set[str]:
    """The names of the classes of httpx or httpx2 that an error is of; empty for any other error."""
    kinds = type(error).__mro__
    return {kind.__name__ for kind in kinds if kind.__module__.partition(".")[0] in ("httpx", "httpx2")}


def error_class_of(error: BaseException) -> type[LlamaStackError]:
    """Which of the error family a failed exchange is: out of reach, too slow, or not understood; or our own fault.

    error: one that `is_http_error`.
    """
    kinds = error_kinds(error)
    if is_shortage(error):
        return ServerBusyError
    if tls_error_of(error) is not None:
        return ProviderUnavailableError
    if _cut_short(error) or _no_http(error):
        return BackendError
    # A connection that is refused comes out of the aiohttp transport as a ConnectTimeout.
    if kinds & {"NetworkError", "ConnectTimeout"} or closed_without_answer(error):
        return ProviderUnavailableError
    if "TimeoutException" in kinds:
        return ProviderTimeoutError
    return BackendError


def closed_without_answer(error: BaseException) -> bool:
    """Whether the connection was closed, in order, without a byte of an answer."""
    cause = error.__cause__
    if type(cause).__name__ == "ServerDisconnectedError":
        return isinstance(getattr(cause, "message", None), str)  # else it is the part of the head that has come
    return "RemoteProtocolError" in error_kinds(error) and "without sending a response" in str(error)


def _no_http(error: BaseException) -> bool:
    """Whether what came is no HTTP, or only the beginning of it."""
    if "RemoteProtocolError" in error_kinds(error):
        return error.__cause__ is not None and not closed_without_answer(error)
    return type(error.__cause__).__name__ == "ServerDisconnectedError" and not closed_without_answer(error)


def _cut_short(error: BaseException) -> bool:
    """Whether an answer ended, in order, before it was complete. The aiohttp transport makes a ReadError of that."""
    if "RemoteProtocolError" in error_kinds(error):
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


def reason_of_http_error(error: BaseException) -> str:
    """What failed and where, in a few words: `connection refused at http://gpu-2:8080`."""
    try:
        url = getattr(error, "request").url  # noqa: B009 - of httpx or httpx2
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
    if closed_without_answer(error):
        return "the connection was closed without an answer"
    if _no_http(error):
        return "something else than HTTP was answered"
    cause = system_error_of(error)
    if cause is None or cause.errno is None:
        of_aiohttp = type(error.__cause__).__module__.startswith("aiohttp")  # most of its errors become this one
        if "ConnectTimeout" in error_kinds(error) and of_aiohttp and not isinstance(error.__cause__, TimeoutError):
            return "the connection was lost"
        if "ConnectTimeout" in error_kinds(error) or type(error.__cause__).__name__ == "ConnectionTimeoutError":
            return "no connection was made in time"
        return str(error) or type(error).__name__
    if isinstance(cause, socket.gaierror) or cause.errno < 0:  # the numbers of getaddrinfo
        return "host name not known"
    return os.strerror(cause.errno).lower()
