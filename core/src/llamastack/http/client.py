"""The HTTP client of our own client, and the authorities that certificates are checked by."""

from __future__ import annotations

import functools
import os
import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any

import httpx

from llamastack.http.connections import needs_fresh
from llamastack.provider.errors import BackendError

_NOTHING_KEPT = httpx.Limits(max_connections=None, max_keepalive_connections=0)


class PlainClient(httpx.AsyncClient):
    """An `httpx.AsyncClient` for one server that asks for no compression, so that answers can be counted as they come.

    It keeps no cookies: the answer to one caller must not go out with another's request. What is sent inside
    `fresh_connections` goes out on connections of its own.

    options: as `httpx.AsyncClient` takes them.
    Raises BackendError for an answer that is compressed nevertheless.
    """

    def __init__(self, **options: object) -> None:
        own: dict[str, Any] = {
            "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            "headers": {"Accept-Encoding": "identity"},
            "event_hooks": {"response": [_refuse_compressed]},
            **options,
        }
        super().__init__(**own)
        self._own = own
        self._keeps_nothing: httpx.AsyncClient | None = None

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """As httpx does it."""
        if not needs_fresh.get():
            return await super().send(request, **options)
        if self._keeps_nothing is None:
            self._keeps_nothing = httpx.AsyncClient(**self._own, limits=_NOTHING_KEPT)
        return await self._keeps_nothing.send(request, **options)

    async def aclose(self) -> None:
        """Close all connections; safe to call twice."""
        await super().aclose()
        if self._keeps_nothing is not None:
            await self._keeps_nothing.aclose()


async def _refuse_compressed(response: httpx.Response) -> None:
    encoding = response.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        where = f"{response.url.scheme}://{response.url.netloc.decode()}"
        raise BackendError(f"{where} answered with content-encoding '{encoding[:100]}', which was not asked for")


def authorities(ca_file: Path | None = None) -> ssl.SSLContext:
    """The trusted authorities: those in the environment or else the usual ones, and those of `ca_file`.

    Raises ValueError if the file cannot be read or holds no certificates in PEM.
    """
    return _read_authorities(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"), ca_file)


@functools.cache
def _read_authorities(file: str | None, folder: str | None, further: Path | None) -> ssl.SSLContext:
    """One context for all clients: reading the certificates of a hundred authorities takes 20 ms."""
    context = httpx.create_ssl_context()
    if further is not None:
        check_authorities(further)
        context.load_verify_locations(cafile=further)
    return context


def check_authorities(ca_file: Path) -> None:
    """Raise ValueError, with the reason, if a file of certificates cannot be used."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=ca_file)
    except ssl.SSLError:
        raise ValueError(f"{ca_file} holds no certificates in PEM") from None
    except OSError as error:
        raise ValueError(f"{ca_file} cannot be read: {os.strerror(error.errno or 0).lower()}") from None
