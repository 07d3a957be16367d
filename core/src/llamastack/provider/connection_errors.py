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
    """Whether `error` is an HTTPError of httpx, or of its successor httpx2, which some SDKs use."""
    return "HTTPError" in error_kinds(error)


def error_kinds(error: BaseException) -> set[str]:
    """The names of an error's classes that httpx or httpx2 define; empty for any other error."""
    kinds = type(error).__mro__
    return {kind.__name__ for kind in kinds if kind.__module__.partition(".")[0] in ("httpx", "httpx2")}


def connection_error(error: BaseException, too_slow: str) -> LlamaStackError:
    """The error of the family for a failed exchange.

    error: an error for which `is_http_error` is true. too_slow: the message for a timeout.
    """
    kind, _ = _diagnosis(error)
    return kind(too_slow if kind is ProviderTimeoutError else reason_of_http_error(error))


def reason_of_http_error(error: BaseException) -> str:
    """What failed and where, in a few words: `connection refused at http://gpu-2:8080`."""
    try:
        url = getattr(error, "request").url  # noqa: B009 - of httpx or httpx2
    except RuntimeError:
        return _diagnosis(error)[1]
    return reason_at(error, f"{url.scheme}://{url.netloc.decode()}")


def reason_at(error: BaseException, where: str) -> str:
    """The same words as `reason_of_http_error` for the error of any SDK, the operating system's somewhere underneath.

    where: scheme, host and port of the backend.
    """
    kind, words = _diagnosis(error)
    return f"{words}, so {where} cannot be reached" if kind is ServerBusyError else f"{words} at {where}"


def _diagnosis(error: BaseException) -> tuple[type[LlamaStackError], str]:
    """Which of the error family a failed exchange is, and what failed, in a few words."""
    if is_shortage(error):
        return ServerBusyError, SHORTAGE
    if (tls := tls_failure_of(error)) is not None:
        return ProviderUnavailableError, f"TLS failed ({tls})"
    if closed_without_answer(error):
        return ProviderUnavailableError, "the connection was closed without an answer"
    kinds, cause, system = error_kinds(error), type(error.__cause__).__name__, _words_of_system(error)
    wrong_http = "RemoteProtocolError" in kinds
    # The aiohttp transport makes a ReadError of an answer that ended, in order, before it was complete.
    if (wrong_http and "without sending complete message body" in str(error)) or (
        cause == "ClientPayloadError" and system is None
    ):
        return BackendError, "the answer was cut short"
    if (wrong_http and error.__cause__ is not None) or cause == "ServerDisconnectedError":
        return BackendError, "something else than HTTP was answered"
    words = system or _words_of_client(error, kinds)
    # A connection that is refused comes out of the aiohttp transport as a ConnectTimeout.
    if kinds & {"NetworkError", "ConnectTimeout"}:
        return ProviderUnavailableError, words
    return ProviderTimeoutError if "TimeoutException" in kinds else BackendError, words


def closed_without_answer(error: BaseException) -> bool:
    """Whether the connection was closed, in order, without a byte of an answer."""
    cause = error.__cause__
    if type(cause).__name__ == "ServerDisconnectedError":
        return isinstance(getattr(cause, "message", None), str)  # else it is the part of the head that has come
    return "RemoteProtocolError" in error_kinds(error) and "without sending a response" in str(error)


def _words_of_system(error: BaseException) -> str | None:
    """The operating system's own words; the transports word its errors each in their own way."""
    for one in chain_of(error):
        number = getattr(one, "errno", None)
        if isinstance(one, OSError) and not isinstance(one, ssl.SSLError) and isinstance(number, int):
            unknown = isinstance(one, socket.gaierror) or number < 0  # the numbers of getaddrinfo
            return "host name not known" if unknown else os.strerror(number).lower()
    return None


def _words_of_client(error: BaseException, kinds: set[str]) -> str:
    cause = error.__cause__
    of_aiohttp = type(cause).__module__.startswith("aiohttp")  # most of its errors become a ConnectTimeout
    if "ConnectTimeout" in kinds and of_aiohttp and not isinstance(cause, TimeoutError):
        return "the connection was lost"
    if "ConnectTimeout" in kinds or type(cause).__name__ == "ConnectionTimeoutError":
        return "no connection was made in time"
    return str(error) or type(error).__name__


# OpenSSL's words for what comes of a port where no TLS is spoken.
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL")


def tls_failure_of(error: BaseException) -> str | None:
    """Why TLS failed, in a few words; None if it did not."""
    # That TLS waits for bytes is no failure of its own: what was waited for has not come.
    waits = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
    found = [one for one in chain_of(error) if isinstance(one, ssl.SSLError) and not isinstance(one, waits)]
    return next(filter(None, map(_tls_words, found)), "it does not say why") if found else None


def _tls_words(error: ssl.SSLError) -> str:
    """Why, in a few words; "" where it does not say. aiohttp's errors are SSLErrors without their attributes."""
    verify, reason = getattr(error, "verify_message", None), getattr(error, "reason", None)
    if verify:
        return str(verify)
    if reason in _NO_TLS:
        return f"no TLS is spoken there: {reason.lower().replace('_', ' ')}"
    return str(reason).lower().replace("_", " ") if reason else ""
