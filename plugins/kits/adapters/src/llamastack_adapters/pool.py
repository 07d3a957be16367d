"""HTTP exchanges with one backend: httpx to configure, and as little as can be between a request and the wire.

Where the transport of `http_client` is aiohttp's, its session is used directly: making httpx's requests and responses
costs more than all the rest of an exchange (`make bench`). Failures are httpx's errors either way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import httpx

from llamastack.http.answer_limits import AnswerLimits, too_large, whole
from llamastack.http.connections import needs_fresh
from llamastack.provider.errors import raise_translated
from llamastack_adapters.http_client import http_client
from llamastack_adapters.transports import as_httpx
from llamastack_adapters.unpacking import bounded_blocks, is_stream_of_lines

if TYPE_CHECKING:
    import aiohttp
    import yarl
    from httpx_aiohttp import AiohttpTransport

_CONTENT_ENCODING = "Content-Encoding"
# What both ways do alike; anything else that httpx can do is left to it.
_COMMON = {"limits", "uds", "verify"}


class HttpResponse(Protocol):
    """An answer whose head is there; its body is read on demand. To be closed, whatever happens."""

    status: int
    """HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """By name, whose case does not count."""
        ...

    async def read(self) -> bytes:
        """The whole body, decompressed; of an error, its beginning. Raises BackendError for one over the limit."""
        ...

    def blocks(self) -> AsyncIterator[bytes]:
        """The body, decompressed, as it comes."""
        ...

    async def aclose(self) -> None:
        """Let go of the connection; one whose body was not read to its end is closed."""
        ...


class ConnectionPool:
    """A pool of connections to a backend.

    timeout: how long the backend may be silent, and connecting may take.
    answer_limits: how long answers may be.
    options: for `http_client`.

    Everything raises httpx's errors, with their request set, and BackendError for an answer over the limit, or one that
    cannot be unpacked.
    """

    def __init__(self, *, timeout: httpx.Timeout, answer_limits: AnswerLimits | None = None, **options: Any) -> None:
        self._direct: _AiohttpPool | None = None
        self._limits = answer_limits or AnswerLimits()
        self._client = http_client(timeout=timeout, answer_limits=answer_limits, **options)
        guarded: Any = self._client._transport
        if options.keys() <= _COMMON and hasattr(guarded.inner, "get_client"):
            self._direct = _AiohttpPool(guarded, timeout)

    async def aclose(self) -> None:
        """Close the connections; safe to call twice."""
        await self._client.aclose()

    async def send(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None) -> HttpResponse:
        """Send a request; gives its answer when the head is there. Redirects are not followed."""
        if self._direct is not None:
            return await self._direct.send(method, url, headers, content)
        request = self._client.build_request(method, url, content=content, headers=headers)
        return _HttpxAnswer(await self._client.send(request, stream=True, follow_redirects=False), self._limits)


class _HttpxAnswer:
    def __init__(self, response: httpx.Response, limits: AnswerLimits) -> None:
        self._response = response
        self._limits = limits
        self.status = response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    async def read(self) -> bytes:
        url = self._response.url
        where = f"{url.scheme}://{url.netloc.decode()}"
        return await whole(self.blocks(), self._limits.response_bytes, where)

    def blocks(self) -> AsyncIterator[bytes]:
        return self._response.aiter_bytes()

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._response.aclose()


class _AiohttpPool:
    """Sends by the session of the aiohttp transport that stands behind `guarded`."""

    def __init__(self, guarded: Any, timeout: httpx.Timeout) -> None:
        import aiohttp

        self.guarded = guarded
        self.timeout = aiohttp.ClientTimeout(
            total=None, connect=timeout.pool, sock_connect=timeout.connect, sock_read=timeout.read
        )
        self._urls: dict[str, yarl.URL] = {}

    async def send(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None) -> HttpResponse:
        transport: AiohttpTransport = self.guarded.spare() if needs_fresh.get() else self.guarded.inner
        session = transport.client
        if session is None or callable(session):
            # In the loop, which a session needs; the transport keeps it, and closes it.
            session = transport.client = transport.get_client()
        try:
            response = await session.request(
                method,
                self._urls.get(url) or self._url(url),
                data=content,
                headers=headers,
                allow_redirects=False,
                timeout=self.timeout,
            )
        except Exception as error:
            raise_translated(error, as_httpx(error, method, url))
        return _DirectAnswer(response, self.guarded.limits)

    def _url(self, url: str) -> yarl.URL:
        import yarl

        made = self._urls[url] = yarl.URL(url)
        return made


class _DirectAnswer:
    def __init__(self, response: aiohttp.ClientResponse, limits: AnswerLimits) -> None:
        self._response = response
        self._limits = limits
        self.status = response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    async def read(self) -> bytes:
        if self.status >= 400 or _CONTENT_ENCODING in self._response.headers:
            return await whole(self.blocks(), self._limits.response_bytes, self._where())
        blocks: list[bytes] = []
        left = self._limits.response_bytes
        try:
            while block := await self._response.content.readany():
                blocks.append(block)
                left -= len(block)
                if left < 0:
                    break
        except Exception as error:
            raise_translated(error, as_httpx(error, self._response.method, str(self._response.url)))
        if left < 0:
            raise too_large(self._where(), self._limits.response_bytes)
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    def _where(self) -> str:
        url = self._response.url
        return f"{url.scheme}://{url.raw_authority}"

    def blocks(self) -> AsyncIterator[bytes]:
        headers = self._response.headers
        if self.status < 400 and _CONTENT_ENCODING not in headers and is_stream_of_lines(headers):
            return self._raw()  # its reader limits each event
        return bounded_blocks(self._raw(), headers, self._limits, self._where(), is_error=self.status >= 400)

    async def _raw(self) -> AsyncIterator[bytes]:
        try:
            async for block in self._response.content.iter_any():
                yield block
        except Exception as error:
            raise_translated(error, as_httpx(error, self._response.method, str(self._response.url)))

    async def aclose(self) -> None:
        # Never waits for the backend: a body that is not read to its end costs its connection.
        self._response.release()
