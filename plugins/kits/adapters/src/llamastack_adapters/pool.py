"""Connections to one backend. It is configured like httpx and adds little between a request and the wire.

If `http_client` has aiohttp's transport, its session is used directly: building httpx's requests and responses costs
more than all the rest of a request (`make bench`). Failures are httpx's errors in both cases.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import httpx

from llamastack.http.answer_limits import AnswerLimits, too_large, whole
from llamastack.http.connections import needs_fresh
from llamastack.provider.errors import raise_translated
from llamastack_adapters.decompression import bounded_blocks, is_stream_of_lines
from llamastack_adapters.http_client import http_client
from llamastack_adapters.transports import as_httpx

if TYPE_CHECKING:
    import aiohttp
    from httpx_aiohttp import AiohttpTransport

    from llamastack_adapters.direct_posts import Answer, DirectPosts

_CONTENT_ENCODING = "Content-Encoding"
_NO_CONTENT_TYPE = ("Content-Type",)
# The longest body that is written at once; a longer one is written in blocks, as fast as the peer reads them.
_MOST_AT_ONCE = 2**18
# Options that mean the same to both clients; with any other option httpx sends the requests.
_COMMON = {"limits", "uds", "verify"}


class HttpResponse(Protocol):
    """An answer whose head has arrived; its body is read on demand. The caller must close it in any case."""

    status: int
    """HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers by name, in any case."""
        ...

    @property
    def has_arrived(self) -> bool:
        """Whether all of the body is known to be here, read or not."""
        ...

    async def read(self) -> bytes:
        """The whole body, decompressed; of an error, its beginning. Raises BackendError if it is over the limit."""
        ...

    def blocks(self) -> AsyncIterator[bytes]:
        """The body, decompressed, in blocks as they arrive."""
        ...

    async def aclose(self) -> None:
        """Release the connection. It is closed if the body was not read to its end."""
        ...


class ConnectionPool:
    """A pool of connections to a backend.

    timeout: how long the backend may be silent, and connecting may take.
    answer_limits: how long answers may be.
    options: passed to `http_client`.

    All methods raise httpx's errors, with `request` set, and BackendError for an answer that is over the limit or
    cannot be decompressed.
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

    def send(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None
    ) -> Coroutine[Any, Any, HttpResponse]:
        """Send a request and return its answer when the head has arrived. Redirects are not followed."""
        return (self._by_httpx if self._direct is None else self._direct.send)(method, url, headers, content)

    async def _by_httpx(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None) -> HttpResponse:
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

    @property
    def has_arrived(self) -> bool:
        return False

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
    """Sends with the session of the aiohttp transport inside `guarded`."""

    def __init__(self, guarded: Any, timeout: httpx.Timeout) -> None:
        import aiohttp

        from llamastack_adapters.direct_posts import DirectPosts

        self.guarded = guarded
        self.timeout = aiohttp.ClientTimeout(
            total=None, connect=timeout.pool, sock_connect=timeout.connect, sock_read=timeout.read
        )
        # Imported here, because a request may find no file descriptor left to import with; made in a running loop.
        self._make_posts = DirectPosts
        self._posts: DirectPosts | None = None

    async def send(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None) -> HttpResponse:
        try:
            if method == "POST" and content is not None and len(content) <= _MOST_AT_ONCE and not needs_fresh.get():
                posts = self._posts or self._direct_posts()
                return _DirectAnswer(await posts.send(url, headers, content), self.guarded.limits)
            session = _session(self.guarded.spare() if needs_fresh.get() else self.guarded.inner)
            response = await session.request(
                method,
                url,
                data=content,
                headers=headers,
                skip_auto_headers=_NO_CONTENT_TYPE if content is None else None,
                allow_redirects=False,
                timeout=self.timeout,
            )
        except Exception as error:
            raise_translated(error, as_httpx(error, method, url))
        return _DirectAnswer(response, self.guarded.limits)

    def _direct_posts(self) -> DirectPosts:
        made = self._posts = self._make_posts(_session(self.guarded.inner), self.timeout)
        return made


def _session(transport: AiohttpTransport) -> aiohttp.ClientSession:
    session = transport.client
    if session is None or callable(session):
        # Made here because a session needs a running loop; the transport keeps and closes it.
        session = transport.client = transport.get_client()
    return session


class _DirectAnswer:
    def __init__(self, response: Answer, limits: AnswerLimits) -> None:
        self._response = response
        self._limits = limits
        self.status = response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    @property
    def has_arrived(self) -> bool:
        return self._response.content.is_eof()

    async def read(self) -> bytes:
        if self.status >= 400 or _CONTENT_ENCODING in self._response.headers:
            return await whole(self.blocks(), self._limits.response_bytes, self._where())
        blocks: list[bytes] = []
        left = self._limits.response_bytes
        try:
            content = self._response.content
            while not content.at_eof() and left >= 0:
                blocks.append(await content.readany())
                left -= len(blocks[-1])
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
            return self._raw()  # the reader of the events limits their size
        return bounded_blocks(self._raw(), headers, self._limits, self._where(), is_error=self.status >= 400)

    async def _raw(self) -> AsyncIterator[bytes]:
        try:
            async for block in self._response.content.iter_any():
                yield block
        except Exception as error:
            raise_translated(error, as_httpx(error, self._response.method, str(self._response.url)))

    async def aclose(self) -> None:
        # This never waits for the backend: a body that was not read to its end costs the connection.
        self._response.release()
