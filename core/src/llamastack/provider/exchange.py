"""HTTP exchanges with one backend: httpx to configure, and as little as can be between a request and the wire.

Where the transport of `http_client` is aiohttp's, its session is used directly: making httpx's requests and responses
costs more than all the rest of an exchange (`make bench`). Failures are httpx's errors either way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import httpx

from llamastack.provider.errors import raise_instead
from llamastack.provider.http import aiohttp_transport, http_client

if TYPE_CHECKING:
    import aiohttp
    import yarl
    from httpx_aiohttp import AiohttpTransport

# What both ways do alike; anything else that httpx can do is left to it.
_COMMON = {"limits", "uds", "verify"}


class Answer(Protocol):
    """An answer whose head is there; its body is read on demand. To be closed, whatever happens."""

    status: int
    """HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """By name, whose case does not count."""
        ...

    async def read(self) -> bytes:
        """The whole body, decompressed."""
        ...

    def blocks(self) -> AsyncIterator[bytes]:
        """The body, decompressed, as it comes."""
        ...

    async def aclose(self) -> None:
        """Let go of the connection; one whose body was not read to its end is closed."""
        ...


class Exchanges:
    """A pool of connections to a backend.

    timeout: how long the backend may be silent, and connecting may take.
    options: for `http_client`.

    Everything raises httpx's errors, with their request set.
    """

    def __init__(self, *, timeout: httpx.Timeout, **options: Any) -> None:
        transport = aiohttp_transport(options) if options.keys() <= _COMMON else None
        self._direct: _Direct | None = None
        if transport is not None:
            self._direct = _Direct(transport, timeout)
            options = {name: value for name, value in options.items() if name != "uds"} | {"transport": transport}
        self._client = http_client(timeout=timeout, **options)

    async def aclose(self) -> None:
        """Close the connections; safe to call twice."""
        await self._client.aclose()

    async def send(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None) -> Answer:
        """Send a request; gives its answer when the head is there. Redirects are not followed."""
        if self._direct is not None:
            return await self._direct.send(method, url, headers, content)
        request = self._client.build_request(method, url, content=content, headers=headers)
        return _HttpxAnswer(await self._client.send(request, stream=True, follow_redirects=False))


class _HttpxAnswer:
    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    async def read(self) -> bytes:
        return await self._response.aread()

    def blocks(self) -> AsyncIterator[bytes]:
        return self._response.aiter_bytes()

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._response.aclose()


class _Direct:
    def __init__(self, transport: AiohttpTransport, timeout: httpx.Timeout) -> None:
        import aiohttp

        self.transport = transport
        self.timeout = aiohttp.ClientTimeout(
            total=None, connect=timeout.pool, sock_connect=timeout.connect, sock_read=timeout.read
        )
        self._urls: dict[str, yarl.URL] = {}

    async def send(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None) -> Answer:
        session = self.transport.client
        if session is None or callable(session):
            # In the loop, which a session needs; the transport keeps it, and closes it.
            session = self.transport.client = self.transport.get_client()
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
            raise_instead(error, _translated(error, method, url))
        return _DirectAnswer(response)

    def _url(self, url: str) -> yarl.URL:
        import yarl

        made = self._urls[url] = yarl.URL(url)
        return made


class _DirectAnswer:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    async def read(self) -> bytes:
        try:
            return await self._response.read()
        except Exception as error:
            raise_instead(error, self._told(error))

    async def blocks(self) -> AsyncIterator[bytes]:
        try:
            async for block in self._response.content.iter_any():
                yield block
        except Exception as error:
            raise_instead(error, self._told(error))

    async def aclose(self) -> None:
        # Never waits for the backend: a body that is not read to its end costs its connection.
        self._response.release()

    def _told(self, error: Exception) -> Exception:
        return _translated(error, self._response.method, str(self._response.url))


def _translated(error: Exception, method: str, url: str) -> Exception:
    """The error of httpx for one of aiohttp; any other as it is."""
    from httpx_aiohttp.transport import map_aiohttp_exceptions

    try:
        with map_aiohttp_exceptions():
            raise error  # noqa: TRY301 - where it is translated
    except httpx.RequestError as made:
        made.request = httpx.Request(method, url)
        # Where it was raised says nothing of use, and holds the request's body until garbage is collected.
        error.__traceback__ = None
        return made
    except Exception as same:
        return same
    finally:
        del error
