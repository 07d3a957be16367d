"""Calls to Qdrant: embedded, in a thread, or a server over HTTP. Failures become llamastack errors."""

from __future__ import annotations

import functools
import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import anyio
import anyio.to_thread
import httpx
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from qdrant_client.local.local_collection import LocalCollection
from qdrant_client.local.qdrant_local import QdrantLocal

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
from llamastack.provider.private_files import make_private, make_tree_private, private_folder
from llamastack.provider.redaction import Redactor
from llamastack_adapters.credentials import fits_header, key_text
from llamastack_adapters.transports import guarded_transport
from llamastack_provider_qdrant.config import QdrantConfig

Result = TypeVar("Result")

_INVALID = (400, 422)
_UNAVAILABLE = (502, 503)
_TIMEOUT = (408, 504)
_MOST_DETAIL = 300
_MAKES_FILES = ("create_collection", "delete_collection")
_WRITES = ("upsert", "batch_update_points", "delete")
_NORMAL = 1  # https://sqlite.org/pragma.html#pragma_synchronous: it waits only when the log is written back


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
    return _Embedded(config, provider_id) if config.url is None else _Server(config, config.url, provider_id)


class _Embedded:
    """Qdrant inside this process. Its calls block and it is not thread-safe, so one thread uses it at a time."""

    has_indexes = False

    def __init__(self, config: QdrantConfig, provider_id: str) -> None:
        self._path = None if config.path is None else str(config.path)
        self._where = config.location or f"folder {config.path}"
        self._provider_id = provider_id
        self._client: QdrantClient | None = None
        self._turn = anyio.CapacityLimiter(1)

    async def open(self) -> None:
        def make() -> QdrantClient:
            if self._path is None:
                return QdrantClient(location=":memory:", force_disable_check_same_thread=True)
            private_folder(Path(self._path))
            made = QdrantClient(path=self._path, force_disable_check_same_thread=True)
            make_tree_private(Path(self._path))
            return made

        try:
            self._client = await self._in_thread(make)
        except RuntimeError as error:
            # Only the lock file raises RuntimeError while opening.
            raise ProviderUnavailableError(
                f"qdrant {self._where} is in use by another process or provider; only one can open it at a time, "
                "a server (url) serves many",
                provider_id=self._provider_id,
            ) from error

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await self._in_thread(client.close)

    async def call(self, method: str, **arguments: Any) -> Any:
        def run() -> Any:
            if self._client is None:
                raise ProviderUnavailableError(f"qdrant {self._where} is not open", provider_id=self._provider_id)
            try:
                return self._run(self._client, method, **arguments)
            except ValueError as error:
                # A server answers 404 and 409; the embedded Qdrant has only these messages.
                if re.fullmatch(r"Collection \S+ not found", str(error)):
                    raise NotFoundError(str(error), provider_id=self._provider_id) from error
                if re.fullmatch(r"Collection \S+ already exists", str(error)):
                    raise ConflictError(str(error), provider_id=self._provider_id) from error
                raise

        return await self._in_thread(run)

    def _run(self, client: QdrantClient, method: str, **arguments: Any) -> Any:
        name = arguments.get("collection_name", "")
        if method in _WRITES:
            _log_ahead(_database(client, name))
        dropped = _collections(client).get(name) if method == "delete_collection" else None
        answer = getattr(client, method)(**arguments)
        if dropped is not None:
            dropped.close()  # its file would stay open until garbage collection
        if method in _WRITES:
            _sync(_database(client, name))
        if method in _MAKES_FILES and self._path is not None:
            folder = Path(self._path)
            for path in (folder / "meta.json", folder / "collection"):
                make_private(path)
            make_tree_private(folder / "collection" / name)
        return answer

    async def _in_thread(self, function: Callable[[], Result]) -> Result:
        try:
            return await anyio.to_thread.run_sync(function, limiter=self._turn)
        except (OSError, sqlite3.Error) as error:
            raise ProviderUnavailableError(
                f"qdrant {self._where} cannot be read or written: {error}", provider_id=self._provider_id
            ) from error


def _collections(client: QdrantClient) -> dict[str, LocalCollection]:
    """The client's objects for its collections, by name."""
    local = client._client
    return local.collections if isinstance(local, QdrantLocal) else {}


def _database(client: QdrantClient, collection_name: str) -> sqlite3.Connection | None:
    """The file of a collection; None if it is not there, or in memory."""
    collection = _collections(client).get(collection_name)
    return None if collection is None or collection.storage is None else collection.storage.storage


def _log_ahead(database: sqlite3.Connection | None) -> None:
    """Let `_sync` wait for the disk once per call. The client commits each point by itself, and waits each time.

    Without a write-ahead log, such as on some network file systems, SQLite stays as it is.
    """
    if database is None or database.execute("PRAGMA synchronous").fetchone() == (_NORMAL,):
        return
    if database.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",):
        database.execute(f"PRAGMA synchronous={_NORMAL}")


def _sync(database: sqlite3.Connection | None) -> None:
    """Wait until all that was written is on the disk."""
    if database is not None:
        database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


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
