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


def http_client(**options: Any) -> httpx.AsyncClient:
    """An `httpx.AsyncClient` for one backend: kept for the life of a provider instance, closed with it.

    options: as `httpx.AsyncClient` takes them. Where the package httpx-aiohttp is installed (extra `server`), its
    transport is used: httpx's own searches its whole pool at every request. Not where a proxy or a client certificate
    is asked for, by options or by the environment: httpx does these itself.
    """
    if not _OWN_WAYS & options.keys() and not getproxies():
        try:
            from httpx_aiohttp import AiohttpTransport
        except ImportError:
            pass
        else:
            options["transport"] = AiohttpTransport(
                verify=options.get("verify", True),
                limits=options.get("limits", httpx.Limits(max_connections=1000, max_keepalive_connections=100)),
            )
    return httpx.AsyncClient(**options)


def error_class_of(error: httpx.HTTPError) -> type[LlamaStackError]:
    """Which of the error family a failed exchange is: out of reach, too slow, or not understood."""
    # A connection that is refused comes out of the aiohttp transport as a ConnectTimeout.
    if isinstance(error, httpx.NetworkError | httpx.ConnectTimeout):
        return ProviderUnavailableError
    if isinstance(error, httpx.TimeoutException):
        return ProviderTimeoutError
    return BackendError


def reason_of_http_error(error: httpx.HTTPError) -> str:
    """What failed and where, in a few words: `connection refused at http://gpu-2:8080`."""
    # The transports word it each in their own way; the operating system's own words are underneath.
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OSError) and cause.errno is not None):
        cause = cause.__cause__ or cause.__context__
    said = getattr(cause, "strerror", None) or str(error) or type(error).__name__
    if isinstance(cause, socket.gaierror):
        said = "host name not known"
    elif isinstance(cause, OSError) and cause.errno is not None:
        said = os.strerror(cause.errno).lower()
    try:
        url = error.request.url
    except RuntimeError:
        return said
    return f"{said} at {url.scheme}://{url.netloc.decode()}"
