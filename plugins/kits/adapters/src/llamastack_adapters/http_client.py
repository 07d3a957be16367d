"""The HTTP client that providers share: aiohttp's connections under httpx's interface, with limits on answers."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextlib import suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies

import httpx

from llamastack.http.answer_limits import AnswerLimits
from llamastack.http.client import authorities
from llamastack_adapters.decompression import ACCEPTED
from llamastack_adapters.transports import guard

if TYPE_CHECKING:
    import aiohttp
    from httpx_aiohttp import AiohttpTransport

with suppress(ImportError):
    # perf: ready. They read the certificates of all authorities, twice, at their import. The stack imports the modules
    # of factories in a worker thread, so this holds up no event loop there, as it would at the first client.
    import httpx_aiohttp  # noqa: F401

_BLOCK = 2**18  # bytes
_NOTHING_KEPT = httpx.Limits(max_connections=None, max_keepalive_connections=0)
_OWN_WAYS = {"transport", "mounts", "proxy", "cert"}


def http_client(
    *, uds: str | None = None, answer_limits: AnswerLimits | None = None, **options: Any
) -> httpx.AsyncClient:
    """An `httpx.AsyncClient` for one backend. The provider instance keeps it and closes it at the end.

    uds: path of a Unix socket to speak through.
    answer_limits: how long answers may be; by default as `AnswerLimits` says.
    options: as `httpx.AsyncClient` takes them.

    It uses the transport of httpx-aiohttp, because httpx's own searches its whole pool at every request. It is not used
    with a proxy or a client certificate, from the options or the environment: httpx handles these.
    """
    # A cookie from one client's answer must not be sent with another client's call.
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
    """The transport that `http_client` uses for these options; None if it is httpx's own.

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
        # Its own jar would keep cookies in addition to httpx's, and it decompresses each block in one step.
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
    """aiohttp's request, but it writes a large body in blocks, as fast as the peer reads them, and not at once."""
    import aiohttp
    from aiohttp.payload import BytesPayload

    class InBlocks(BytesPayload):
        def __init__(self, body: bytes) -> None:
            super().__init__(b"")  # else it warns about features that are not used here
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
