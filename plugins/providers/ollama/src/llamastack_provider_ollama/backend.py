"""Calls Ollama, through its client except for chats and texts. Failures become llamastack errors."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import httpx
from ollama import AsyncClient, ResponseError

from llamastack.http.client import authorities
from llamastack.http.connections import is_stale_connection, retry_stale_connection
from llamastack.http.sse import iter_lines
from llamastack.provider.connection_errors import connection_error
from llamastack.provider.errors import (
    BackendError,
    InvalidRequestError,
    LlamaStackError,
    NotFoundError,
    NotSupportedError,
    ProviderUnavailableError,
    RateLimitError,
)
from llamastack.provider.streams import Stream, close, closing
from llamastack_adapters.backend import HttpBackend
from llamastack_adapters.credentials import ApiKey
from llamastack_adapters.error_bodies import error_of_answer, error_of_event
from llamastack_adapters.http_client import http_client
from llamastack_adapters.openai_dialect import MALFORMED
from llamastack_adapters.surrogate_pairs import decode_json
from llamastack_provider_ollama.config import OllamaConfig

_T = TypeVar("_T")
_LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=100)
_LACKS = re.compile(r"does not support (\w+)|missing data required for (image) input")
_PARAMS = {"tools": "tools", "vision": "messages", "image": "messages"}


_heads: ContextVar[list[int] | None] = ContextVar("llamastack_ollama_heads", default=None)
"""The HTTP statuses of a call's answers. With the first one, Ollama has begun."""


class _Client(AsyncClient):
    """Ollama's client over our HTTP client. From the environment it reads only proxies."""

    def __init__(self, config: OllamaConfig, request_hook: object, response_hook: object) -> None:
        self._most_event_bytes = config.max_event_bytes
        # Skips the __init__ of AsyncClient, which makes an HTTP client of its own.
        super(AsyncClient, self).__init__(
            http_client,
            str(config.url),
            follow_redirects=False,
            timeout=httpx.Timeout(config.timeout_s, connect=config.connect_timeout_s),
            limits=_LIMITS,
            answer_limits=config.answer_limits,
            verify=str(config.url).startswith("https:") and authorities(config.ca_file),
            event_hooks={"request": [request_hook], "response": [response_hook]},
        )

    async def _request(self, cls: Any, *args: Any, stream: bool = False, **kwargs: Any) -> Any:
        if stream:
            return self._parts(cls, *args, **kwargs)
        return await super()._request(cls, *args, **kwargs)

    async def _parts(self, cls: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """Lines that end with LF only. The client's own iterator also splits at Unicode line breaks inside a text."""
        async with self._client.stream(*args, **kwargs) as response:
            async for line in iter_lines(_ended(response.aiter_bytes()), self._most_event_bytes):
                if line.strip():
                    part = decode_json(line)
                    if part.get("error"):
                        raise ResponseError(part["error"])
                    yield cls(**part)


async def _ended(blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same blocks, and the end of the last line."""
    async for block in blocks:
        yield block
    yield b"\n"


class Backend:
    """One client for the life of a provider.

    Calls raise llamastack errors without a provider_id; the stack adds it. Cancelling a call or closing a stream closes
    its connection, so Ollama can stop its work.
    """

    def __init__(self, config: OllamaConfig, key: ApiKey) -> None:
        parts = httpx.URL(str(config.url))
        self.where = f"{parts.scheme}://{parts.netloc.decode()}"
        self.client: AsyncClient = _Client(config, self._sign, self._check)
        # perf: gateway, row `llamastack-v1-ollama`. The client's requests and types cost more than the rest of a call.
        self.http = HttpBackend(str(config.url), config, headers=key.bearer, explained=self._explained)
        self._key = key
        self._timeout_s = config.timeout_s
        self._retries = config.retries

    async def aclose(self) -> None:
        """Close the connections; safe to call twice."""
        await self.http.aclose()
        await self.client.close()  # type: ignore[no-untyped-call]

    async def whole(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """The result of a call of the client."""
        return await self._retries.run(lambda: self._attempt(call))

    async def stream(self, call: Callable[[], Awaitable[AsyncIterator[_T]]]) -> Stream[_T]:
        """The pieces of a call of the client.

        Returns when the first one is there, so that a refusal is raised here.
        """

        async def begin() -> tuple[AsyncIterator[_T], _T]:
            pieces = await call()
            try:
                return pieces, await anext(pieces)
            except StopAsyncIteration:
                raise self.cut_short() from None

        pieces, first = await self._retries.run(lambda: self._attempt(begin))
        return Stream(self._pieces(first, pieces), lambda: close(pieces))

    def cut_short(self) -> BackendError:
        return BackendError(f"{self.where} ended the stream before the reply was complete")

    async def _pieces(self, first: _T, pieces: AsyncIterator[_T]) -> AsyncIterator[_T]:
        async with closing(pieces):
            yield first
            with self._translated():
                async for piece in pieces:
                    yield piece

    async def _attempt(self, call: Callable[[], Awaitable[_T]]) -> _T:
        with self._translated():
            # The client sends a streaming request only when its first piece is read.
            heads: list[int] = []
            token = _heads.set(heads)
            try:
                return await retry_stale_connection(call, lambda error: not heads and is_stale_connection(error))
            finally:
                _heads.reset(token)

    async def _sign(self, request: httpx.Request) -> None:
        """Set this request's key, in place of the key that the client reads from the environment."""
        request.headers.pop("Authorization", None)
        request.headers.update(self._key.bearer())

    async def _check(self, response: httpx.Response) -> None:
        """Raise for an error answer. The client's own error has neither headers nor address."""
        heads = _heads.get()
        if heads is not None:
            heads.append(response.status_code)
        if response.is_success:
            return
        content = await response.aread()
        raise self._explained(error_of_answer(response.status_code, response.headers, content, self.where))

    def _explained(self, error: LlamaStackError) -> LlamaStackError:
        lacks = _LACKS.search(error.message)
        if lacks and isinstance(error, InvalidRequestError | NotSupportedError | BackendError):
            return NotSupportedError(error.message, param=_PARAMS.get(lacks[1] or lacks[2], "model"))
        if isinstance(error, ProviderUnavailableError) and "server busy" in error.message:
            return RateLimitError(error.message)  # its queue is full
        if isinstance(error, NotFoundError):
            error.amend(param="model")
        return self._key.explained(error)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except LlamaStackError:
            raise
        except ResponseError as error:
            raise self._explained(error_of_event(error.error, self.where)) from error
        except (httpx.HTTPError, ConnectionError) as error:
            # The client's ConnectionError always has the same text; the cause is in its context.
            cause = error if isinstance(error, httpx.HTTPError) else error.__context__ or error
            raise self._failed(cause) from error
        except MALFORMED as error:
            # The client's failures at malformed JSON or another form.
            words = " ".join(str(error).split())
            raise BackendError(f"{self.where} answered something that cannot be understood: {words}") from error

    def _failed(self, cause: BaseException) -> LlamaStackError:
        if not isinstance(cause, httpx.HTTPError):
            return ProviderUnavailableError(str(cause))
        return connection_error(cause, f"{self.where} was silent for {self._timeout_s:g} s")
