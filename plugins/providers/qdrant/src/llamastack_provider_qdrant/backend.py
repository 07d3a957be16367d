"""Calls to Qdrant: in memory, in a thread, or a server over HTTP. Failures become llamastack errors."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.to_thread
import httpx
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from llamastack.http.answer_limits import AnswerLimits
from llamastack.http.client import authorities
from llamastack.http.connections import is_stale_connection, retry_stale_connection
from llamastack.provider import (
    AuthenticationError,
    BackendError,
    ConflictError,
    InvalidRequestError,
    LlamaStackError,
    NotFoundError,
    PermissionDeniedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
)
from llamastack.provider.connection_errors import connection_error
from llamastack.provider.redaction import Redactor
from llamastack_adapters.credentials import fits_header, key_text
from llamastack_adapters.transports import guarded_transport
from llamastack_provider_qdrant.config import QdrantConfig

_INVALID = (400, 422)
_UNAVAILABLE = (502, 503)
_TIMEOUT = (408, 504)
_MOST_DETAIL = 300


class Backend(Protocol):
    """A Qdrant. `call` takes the name of any method of `QdrantClient`."""

    has_indexes: bool
    """Whether payload indexes have an effect."""

    async def open(self) -> None:
        """Open the backend; called once."""
        ...

    async def close(self) -> None:
        """Release everything; safe to call twice, and without `open`."""
        ...

    async def call(self, method: str, **arguments: Any) -> Any:
        """`QdrantClient.<method>(**arguments)`.

        Raises NotFoundError if the collection does not exist, ConflictError if it exists already,
        ProviderUnavailableError if Qdrant is down, and the matching error for any other refusal of Qdrant.
        """
        ...


def make_backend(config: QdrantConfig, provider_id: str) -> Backend:
    """The backend that `config` names. It is not opened yet."""
    if config.path is not None:
        from llamastack_provider_qdrant.edge_backend import EdgeBackend  # the engine is a library of 35 MB

        return EdgeBackend(Path(config.path), provider_id)
    return _InMemory(provider_id) if config.url is None else _Server(config, config.url, provider_id)


class _InMemory:
    """The imitation of Qdrant in qdrant-client. It is not thread-safe, so one thread uses it at a time."""

    has_indexes = False

    def __init__(self, provider_id: str) -> None:
        self._provider_id = provider_id
        self._client: QdrantClient | None = None
        self._turn = anyio.CapacityLimiter(1)

    async def open(self) -> None:
        self._client = QdrantClient(location=":memory:", force_disable_check_same_thread=True)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await anyio.to_thread.run_sync(client.close, limiter=self._turn)

    async def call(self, method: str, **arguments: Any) -> Any:
        def run() -> Any:
            if self._client is None:
                raise ProviderUnavailableError("qdrant :memory: is not open", provider_id=self._provider_id)
            try:
                return getattr(self._client, method)(**arguments)
            except ValueError as error:
                # A server answers 404 and 409; the imitation has only these messages.
                if re.fullmatch(r"Collection \S+ not found", str(error)):
                    raise NotFoundError(str(error), provider_id=self._provider_id) from error
                if re.fullmatch(r"Collection \S+ already exists", str(error)):
                    raise ConflictError(str(error), provider_id=self._provider_id) from error
                raise

        return await anyio.to_thread.run_sync(run, limiter=self._turn)


def _was_dropped(error: Exception) -> bool:
    return isinstance(error, ResponseHandlingException) and is_stale_connection(error.source)


class _Server:
    """Qdrant behind a URL."""

    has_indexes = True

    def __init__(self, config: QdrantConfig, url: str, provider_id: str) -> None:
        self._config = config
        self._url = url
        self._provider_id = provider_id
        self._client: AsyncQdrantClient | None = None

    async def open(self) -> None:
        key = key_text(self._config.api_key)
        if not fits_header(key):
            raise AuthenticationError(
                "api_key: must be printable ASCII", provider_id=self._provider_id, param="api_key"
            )
        self._client = AsyncQdrantClient(
            url=self._url,
            api_key=key or None,
            timeout=self._config.timeout,
            # The check makes a request in a separate thread, and its only result is a warning.
            check_compatibility=False,
            transport=self._transport(),
        )

    def _transport(self) -> httpx.AsyncBaseTransport:
        """The client's transport: it also keeps connections to localhost alive, and limits the size of replies."""
        verify = self._url.startswith("https:") and authorities(self._config.ca_file)

        def made(kept: int) -> httpx.AsyncHTTPTransport:
            limits = httpx.Limits(max_connections=100, max_keepalive_connections=kept)
            return httpx.AsyncHTTPTransport(verify=verify, limits=limits)

        transport: httpx.AsyncBaseTransport = guarded_transport(
            made(20), AnswerLimits(self._config.max_response_bytes), lambda: made(0)
        )
        return transport

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def call(self, method: str, **arguments: Any) -> Any:
        if self._client is None:
            raise ProviderUnavailableError(f"qdrant at {self._url} is not open", provider_id=self._provider_id)
        try:
            call = functools.partial(getattr(self._client, method), **arguments)
            return await retry_stale_connection(call, _was_dropped)
        except UnexpectedResponse as error:
            raise self._refused(error) from error
        except QdrantException as error:  # also where the client cannot read a Retry-After, such as a date
            raise RateLimitError(
                f"qdrant at {self._url} limits the rate of requests",
                retry_after=getattr(error, "retry_after_s", None),
                provider_id=self._provider_id,
            ) from error
        except ResponseHandlingException as error:
            raise self._failed(error.source) from error
        except (AssertionError, json.JSONDecodeError, UnicodeDecodeError) as error:
            # The client raises these for a reply without JSON, or for JSON without a result.
            raise self._failed(error) from error

    def _failed(self, source: Exception) -> LlamaStackError:
        if isinstance(source, LlamaStackError):  # our transport raised it: the reply is over the limit
            return source.amend(provider_id=self._provider_id)
        if isinstance(source, httpx.TimeoutException):
            return ProviderTimeoutError(
                f"qdrant at {self._url} did not answer within {self._config.timeout} s", provider_id=self._provider_id
            )
        if isinstance(source, httpx.TransportError):
            made = connection_error(source, "no answer came in time")
            reason = f"{type(source).__name__}: {made.message}"
            return made.amend(f"qdrant at {self._url} cannot be reached: {reason}", provider_id=self._provider_id)
        return BackendError(
            f"qdrant at {self._url} does not answer like Qdrant: {type(source).__name__}",
            provider_id=self._provider_id,
        )

    def _refused(self, error: UnexpectedResponse) -> LlamaStackError:
        status = error.status_code or 0
        message = f"qdrant at {self._url} answered {status}: {self._detail(error)}"
        if status == 401:
            return AuthenticationError(message, provider_id=self._provider_id, param="api_key")
        if status == 403:
            return PermissionDeniedError(message, provider_id=self._provider_id, param="api_key")
        kinds: dict[int, type[LlamaStackError]] = {404: NotFoundError, 409: ConflictError, 429: RateLimitError}
        kinds.update(dict.fromkeys(_INVALID, InvalidRequestError))
        kinds.update(dict.fromkeys(_UNAVAILABLE, ProviderUnavailableError))
        kinds.update(dict.fromkeys(_TIMEOUT, ProviderTimeoutError))
        return kinds.get(status, BackendError)(message, provider_id=self._provider_id)

    def _detail(self, error: UnexpectedResponse) -> str:
        # A proxy may repeat the request, with the key, in its reply.
        text = error.content.decode("utf-8", errors="replace").strip() or error.reason_phrase
        return Redactor(self._config)(text)[:_MOST_DETAIL]
