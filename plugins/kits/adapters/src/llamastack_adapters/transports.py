"""Wrappers of HTTP transports, for httpx and for its successor httpx2, which some SDKs use.

They limit answers and decompress them in small steps, give a second attempt a new connection, and turn aiohttp's errors
into httpx's.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import anyio
import httpx

from llamastack.http.answer_limits import AnswerLimits
from llamastack.http.connections import UNLIMITED, needs_fresh
from llamastack.provider.errors import raise_translated
from llamastack_adapters.decompression import bounded_blocks

_Client = TypeVar("_Client")


class _Guarded:
    """A transport in front of another one.

    inner: sends the requests.
    spare: makes a transport that keeps no connections; None if a second attempt uses `inner`, too.
    """

    def __init__(self, inner: Any, limits: AnswerLimits, spare: Callable[[], Any] | None, stream: type) -> None:
        self.inner = inner
        self.limits = limits
        self._make_spare = spare
        self._spare: Any = None
        self._stream = stream

    def spare(self) -> Any:
        """The transport that keeps no connections."""
        if self._make_spare is None:
            return self.inner
        if self._spare is None:
            self._spare = self._make_spare()
        return self._spare

    async def handle_async_request(self, request: Any) -> Any:
        chosen = self.spare() if needs_fresh.get() else self.inner
        try:
            response = await chosen.handle_async_request(request)
        except Exception as error:
            raise_translated(error, as_httpx(error, request.method, str(request.url)))
        response.stream = self._stream(response, self.limits, request)
        response.headers.pop("content-encoding", None)  # it is undone below
        return response

    async def aclose(self) -> None:
        spare, self._spare = self._spare, None
        await self.inner.aclose()
        if spare is not None:
            await spare.aclose()


class _GuardedStream:
    """The body of an answer, decompressed and limited."""

    def __init__(self, response: Any, limits: AnswerLimits, request: Any) -> None:
        self._inner = response.stream
        self._headers = dict(response.headers)
        self._is_error = response.status_code >= 400
        self._limits = limits
        self._request = request

    def __aiter__(self) -> AsyncIterator[bytes]:
        url = self._request.url
        where = f"{url.scheme}://{url.netloc.decode()}"
        limits = self._limits
        if self._request.extensions.get(UNLIMITED):
            limits = AnswerLimits(sys.maxsize, limits.event_bytes)
        return bounded_blocks(self._raw(), self._headers, limits, where, is_error=self._is_error)

    async def _raw(self) -> AsyncIterator[bytes]:
        try:
            async for block in self._inner:
                yield block
        except Exception as error:
            raise_translated(error, as_httpx(error, self._request.method, str(self._request.url)))

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._inner.aclose()


@functools.cache
def _made(kind: type, base: type) -> type:
    return type(kind.__name__, (kind, base), {})


def guarded_transport(
    inner: Any, limits: AnswerLimits, spare: Callable[[], Any] | None = None, library: Any = httpx
) -> Any:
    """A transport of `library` (httpx or httpx2) with the behaviour of this module.

    spare: makes a transport that keeps no connections.
    """
    stream = _made(_GuardedStream, library.AsyncByteStream)
    return _made(_Guarded, library.AsyncBaseTransport)(inner, limits, spare, stream)


def guard(
    client: _Client, limits: AnswerLimits, spare: Callable[[], Any] | None = None, library: Any = httpx
) -> _Client:
    """The same client of `library`, with all its transports guarded, including those for proxies of the environment.

    spare: makes the same client again, but one that keeps no connections.
    """
    made: Any = client
    another = None if spare is None else functools.cache(spare)

    def spare_of(pattern: Any) -> Callable[[], Any] | None:
        if another is None:
            return None
        return lambda: another()._transport if pattern is None else another()._mounts[pattern]

    made._transport = guarded_transport(made._transport, limits, spare_of(None), library)
    for pattern, transport in list(made._mounts.items()):
        if transport is not None:
            made._mounts[pattern] = guarded_transport(transport, limits, spare_of(pattern), library)
    return client


def as_httpx(error: Exception, method: str, url: str) -> Exception:
    """httpx's error for an error of aiohttp; any other error unchanged."""
    if not type(error).__module__.startswith("aiohttp"):
        return error
    import aiohttp
    from httpx_aiohttp.transport import map_aiohttp_exceptions

    try:
        with map_aiohttp_exceptions():
            raise error  # noqa: TRY301 - where it is translated
    except httpx.RequestError as made:
        return _of_request(made, error, method, url)
    except aiohttp.ClientError:
        # For example for an answer that is not HTTP. The error's text holds the backend's bytes.
        return _of_request(httpx.RemoteProtocolError("it is not HTTP"), error, method, url)
    except Exception as same:
        return same
    finally:
        del error


def _of_request(made: httpx.RequestError, error: Exception, method: str, url: str) -> httpx.RequestError:
    made.__cause__ = error
    made.request = httpx.Request(method, url)
    # Without its traceback, which tells nothing and would keep the request's body until garbage is collected.
    error.__traceback__ = None
    return made
