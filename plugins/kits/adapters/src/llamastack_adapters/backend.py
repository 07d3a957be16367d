"""A backend over HTTP: one client for the life of a provider; failures become llamastack errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import httpx
import pydantic_core

from llamastack.http.answer_limits import whole
from llamastack.http.client import authorities
from llamastack.http.connections import is_stale_connection, retry_stale_connection
from llamastack.http.lone_surrogates import encode_json, whole_texts
from llamastack.http.sse import iter_data
from llamastack.provider.connection_errors import connection_error
from llamastack.provider.context import current_context
from llamastack.provider.errors import BackendError, LlamaStackError
from llamastack.provider.streams import Stream, closing
from llamastack_adapters._blocks import after, first_bytes, from_first
from llamastack_adapters.credentials import ApiKey
from llamastack_adapters.decompression import ACCEPTED
from llamastack_adapters.error_bodies import error_in, error_in_choice, error_of_answer, error_of_event, has_reply
from llamastack_adapters.event_streams import EventStream, drain_briefly
from llamastack_adapters.line_reader import Lines
from llamastack_adapters.non_streaming_replies import (
    BYTE_ORDER_MARK,
    events_of,
    has_form,
    looks_like_events,
    looks_whole,
    wants_usage,
)
from llamastack_adapters.pool import ConnectionPool, HttpResponse
from llamastack_adapters.remote_inference import HttpConfig
from llamastack_adapters.sse_blocks import DONE, split_at_events
from llamastack_adapters.surrogate_pairs import decode_json
from llamastack_adapters.url_paths import Params

_MOST_SHOWN = 16 * 1024  # bytes of an event in a message; the stack redacts secrets and then shortens it
# No limit: a full pool would block without an error, health checks included.
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=100)
_WITHOUT_CONTENT = (201, 202, 204, 205)


def _nothing() -> dict[str, str]:
    return {}


def _unchanged(error: LlamaStackError) -> LlamaStackError:
    return error


class HttpBackend:
    """JSON over HTTP, with server-sent events.

    url: the backend's URL; paths are appended to it.
    config: sets the limits of time and size, the certificate authority and the retries.
    key: the key to send, in the header that it names. An error of the backend about it says where to give another.
    headers: called for each request; returns the headers to add to it. Default: that of `key`.
    explained: takes the error of an answer and returns the error to raise. Default: that of `key`.
    finds_error: returns the error in an answer of 2xx, or None. The default also takes `message` and `detail` for an
    error, as backends of models have them; `stated_error` takes only what is called an error.
    options: passed to `http_client`.

    A request is sent again if its connection ends within 0.1 s without an answer: an idle backend may have closed
    it, or have carried the request out. So give what you write ids of your own. A POST or PATCH is sent once inside
    `llamastack.http.connections.fresh_connections`. Rate limits (429) are retried as the config says.

    Calls raise llamastack errors without a provider_id; the stack adds it. Cancelling a call or closing a stream closes
    its connection, so the backend can stop its work.
    """

    def __init__(
        self,
        url: str,
        config: HttpConfig,
        *,
        key: ApiKey | None = None,
        headers: Callable[[], Mapping[str, str]] | None = None,
        explained: Callable[[LlamaStackError], LlamaStackError] | None = None,
        finds_error: Callable[[Any], Any] = error_in,
        **options: Any,
    ) -> None:
        self.url: str = url.rstrip("/")
        """The backend's URL, without a slash at its end."""
        parts = httpx.URL(url)
        self.where: str = f"{parts.scheme}://{parts.netloc.decode()}"
        """Scheme, host and port of the backend, for error messages."""
        self._timeout_s = config.timeout_s
        self._retries = config.retries
        self._headers = headers or (_nothing if key is None else key.headers)
        self._explained = explained or (_unchanged if key is None else key.explained)
        self._finds_error = finds_error
        if parts.scheme == "http":
            # There is no certificate to verify, so the files of the authorities need not be read.
            options.setdefault("verify", False)
        else:
            options.setdefault("verify", authorities(config.ca_file))
        self._limits = config.answer_limits
        self._pool = ConnectionPool(
            timeout=httpx.Timeout(config.timeout_s, connect=config.connect_timeout_s),
            answer_limits=self._limits,
            **{"limits": _LIMITS, **options},
        )

    async def aclose(self) -> None:
        """Close the connections; safe to call twice."""
        await self._pool.aclose()

    async def get(self, path: str, params: Params | None = None) -> Any:
        """The decoded JSON at `path`. Raises the error that the answer holds.

        params: the query of the URL; `url_paths.url_path` quotes what a path holds.
        """
        return await self.request("GET", path, params=params)

    async def get_list(self, path: str, params: Params | None = None) -> list[Any]:
        """As `get`, of a list. Raises BackendError for another answer, which is not taken for an empty list."""
        answer = await self.get(path, params)
        if not isinstance(answer, list):
            raise BackendError(f"{self.where}{path} answered JSON that is not a list")
        return answer

    async def post(self, path: str, body: object = None) -> Any:
        """The decoded JSON that answers `body`. Raises the error that the answer holds."""
        return await self.request("POST", path, body)

    async def put(self, path: str, body: object = None) -> Any:
        """As `post`. None for an answer without content."""
        return await self.request("PUT", path, body)

    async def patch(self, path: str, body: object = None) -> Any:
        """As `post`. None for an answer without content."""
        return await self.request("PATCH", path, body)

    async def delete(self, path: str, body: object = None, params: Params | None = None) -> Any:
        """As `post`. None for an answer without content."""
        return await self.request("DELETE", path, body, params)

    async def request(self, method: str, path: str, body: object = None, params: Params | None = None) -> Any:
        """The decoded JSON that answers a request of any method. Raises the error that the answer holds.

        None for an answer without content, if the method or the status (201, 202, 204, 205) lets expect it; any other
        is a BackendError. body: what becomes JSON; None sends none. params: the query of the URL.
        """
        content = None if body is None else encode_json(body)
        query = f"?{urlencode({**params})}" if params else ""

        async def once() -> Any:
            answer = await self._begin(method, path + query, content, "application/json")
            received = await self._read(answer)
            may_be_empty = answer.status in _WITHOUT_CONTENT or method not in ("GET", "POST")
            return None if may_be_empty and not received.strip() else self._json(path, received)

        return await self._retries.run(once)

    async def events(self, path: str, body: Mapping[str, Any]) -> EventStream[Any]:
        """The decoded data of each event that answers `body`, until `[DONE]` or the end.

        A text may hold half of a surrogate pair; the other half is in another event.

        Returns when the backend has begun to answer, so a refusal is raised here. A whole answer becomes a stream with
        one event for all of it.
        """
        content = encode_json(body)
        answer, blocks = await self._retries.run(lambda: self._stream(path, content))
        return EventStream(lambda done: self._decoded(answer, blocks, done), answer.aclose)

    async def lines(self, path: str, body: Mapping[str, Any]) -> Stream[Any]:
        """The decoded JSON of each line that answers `body`. A line `{"error": ...}` raises what it says.

        Returns when the first line is there, so that a refusal is raised here.
        """
        content = encode_json(body)

        async def begin() -> tuple[HttpResponse, AsyncIterator[Any], Any]:
            answer = await self._begin("POST", path, content, "application/x-ndjson")
            lines = self._decoded_lines(answer)
            try:
                return answer, lines, await anext(lines)
            except StopAsyncIteration:
                raise BackendError(f"{self.where} ended the stream before the reply was complete") from None

        answer, lines, first = await self._retries.run(begin)
        return Stream(from_first(first, lines), answer.aclose)

    async def all_lines(
        self, path: str, body: Mapping[str, Any], is_last: Callable[[Mapping[str, Any]], object]
    ) -> list[dict[str, Any]]:
        """The decoded JSON objects of the lines that answer `body`, to the one that `is_last` or the end.

        Raises what `lines` raises, and BackendError for a line that is something else than an object.
        """
        # perf: llamastack-v1-ollama. A stream that nobody reads piece by piece costs a third of a whole reply.
        content = encode_json(body)
        return await self._retries.run(lambda: self._all_lines(path, content, is_last))

    async def _all_lines(
        self, path: str, content: bytes, is_last: Callable[[Mapping[str, Any]], object]
    ) -> list[dict[str, Any]]:
        answer = await self._begin("POST", path, content, "application/x-ndjson")
        found: list[dict[str, Any]] = []
        lines = Lines(self._limits.event_bytes, self.where)
        try:
            async with closing(answer.blocks()) as blocks:
                async for block in blocks:
                    for line in lines.add(block):
                        found.append(self._object(line))
                        if is_last(found[-1]):
                            await drain_briefly(blocks, arrived=answer.has_arrived)
                            return found
            found += map(self._object, lines.end())
            return found
        except httpx.HTTPError as error:
            raise self._broke_off(error) from error
        finally:
            await answer.aclose()

    async def forward(self, path: str, body: bytes) -> bytes:
        """The JSON object that answers `body`, unchanged. Raises if it is broken or an error.

        A rate limit is raised at once: the client decides whether to send its request again.
        """
        content = await self._whole("POST", path, body)
        field = "data" if path.partition("?")[0].endswith("/embeddings") else "choices"
        if not has_form(content, field):
            answer = self._json(path, content)
            entries = answer.get(field) if isinstance(answer, dict) else None
            if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
                raise BackendError(f"{self.where}{path} answered JSON without a list '{field}'")
            if not entries and field == "choices":
                raise BackendError(f"{self.where}{path} answered JSON whose list 'choices' is empty")
        return content.removeprefix(BYTE_ORDER_MARK)

    async def forward_events(self, path: str, body: bytes) -> Stream[bytes]:
        """The events that answer `body`, unchanged: blocks of one or several whole events.

        Returns when the backend has begun to answer, so a refusal is raised here. A whole answer becomes a stream that
        yields all of it at once.
        """
        answer, blocks = await self._stream(path, body)
        return Stream(self._events(answer, blocks, body), answer.aclose)

    async def _stream(self, path: str, body: bytes) -> tuple[HttpResponse, AsyncIterator[bytes]]:
        """The answer, and the blocks of its body. Raises if it is neither a stream nor a whole answer."""
        answer = await self._begin("POST", path, body, "text/event-stream")
        blocks = answer.blocks()
        kind = answer.headers.get("content-type", "")
        if kind.startswith("text/event-stream"):
            return answer, blocks
        try:
            first = await first_bytes(blocks)
            if not looks_like_events(first):
                content = await whole(blocks, self._limits.response_bytes, self.where, first)
                first = self._as_events(path, content, body, kind)
            return answer, after(first, blocks)
        except httpx.HTTPError as error:
            await answer.aclose()
            raise self._broke_off(error) from error
        except BaseException:
            await answer.aclose()
            raise

    def _as_events(self, path: str, content: bytes, body: bytes, kind: str = "text/event-stream") -> bytes:
        """A whole answer as the events of a stream. kind: its content-type."""
        if not looks_whole(content):
            raise BackendError(f"{self.where} answered a stream with {kind[:100] or 'no content-type'}")
        answer = self._json(path, content)
        try:
            return events_of(answer, usage_apart=wants_usage(body))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise BackendError(f"{self.where}{path} answered a stream with JSON without 'choices'") from None

    async def _whole(self, method: str, path: str, body: bytes | None) -> bytes:
        return await self._read(await self._begin(method, path, body, "application/json"))

    def _json(self, path: str, content: bytes) -> Any:
        """The decoded answer. Raises the error that it holds."""
        content = content.removeprefix(BYTE_ORDER_MARK)
        try:
            try:
                answer = pydantic_core.from_json(content)
            except ValueError:
                answer = whole_texts(decode_json(content))  # this decoder accepts lone surrogates
        except ValueError:
            raise BackendError(f"{self.where}{path} answered something else than JSON") from None
        error = error_in_choice(answer) if has_reply(answer) else self._finds_error(answer)
        if error is not None:
            raise self._explained(error_of_event(error, self.where, "answered with an error"))
        return answer

    async def _begin(self, method: str, path: str, body: bytes | None, accept: str) -> HttpResponse:
        """The answer, once its head has arrived. Raises if it is an error."""
        headers = {
            "Accept": accept,
            "Accept-Encoding": ACCEPTED,
            **self._headers(),
        }
        if body is not None:  # some servers refuse a content-type without content
            headers.setdefault("Content-Type", "application/json")
        trace = current_context().traceparent
        if trace is not None:
            headers["traceparent"] = trace
        try:
            answer = await retry_stale_connection(
                lambda: self._pool.send(method, self.url + path, headers, body), is_stale_connection
            )
        except httpx.HTTPError as error:
            raise self._failed(error) from error
        if 200 <= answer.status < 300:
            return answer
        content = await self._read(answer)
        raise self._explained(error_of_answer(answer.status, answer.headers, content, self.where))

    async def _read(self, answer: HttpResponse) -> bytes:
        try:
            return await answer.read()
        except httpx.HTTPError as error:
            raise self._broke_off(error) from error
        finally:
            await answer.aclose()

    async def _events(self, answer: HttpResponse, blocks: AsyncIterator[bytes], body: bytes) -> AsyncIterator[bytes]:
        try:
            first = await anext(blocks, b"")
            if looks_whole(first):  # whatever its content-type says
                content = await whole(blocks, self._limits.response_bytes, self.where, first)
                yield self._as_events("", content, body)
                return
            async for block in split_at_events(blocks, self._limits.event_bytes, first):
                yield block
        except httpx.HTTPError as error:
            raise self._broke_off(error) from error
        finally:
            await answer.aclose()

    async def _decoded(
        self, answer: HttpResponse, blocks: AsyncIterator[bytes], done: Callable[[], None]
    ) -> AsyncIterator[Any]:
        try:
            first = await anext(blocks, b"")
            blocks = after(first, blocks)
            if looks_whole(first):
                content = await whole(blocks, self._limits.response_bytes, self.where)
                blocks = after(self._as_events("", content, b""), blocks)
            events = iter_data(blocks, self._limits.event_bytes)
            async for data in events:
                if data == DONE:
                    done()
                    await drain_briefly(events)
                    return
                try:
                    decoded = decode_json(data)
                except ValueError:
                    shown = data[:_MOST_SHOWN].decode(errors="replace")
                    raise BackendError(f"{self.where} sent an event that is not JSON: {shown}") from None
                yield decoded
        except httpx.HTTPError as error:
            raise self._broke_off(error) from error
        finally:
            await answer.aclose()

    async def _decoded_lines(self, answer: HttpResponse) -> AsyncIterator[Any]:
        lines = Lines(self._limits.event_bytes, self.where)
        try:
            async for block in answer.blocks():
                for line in lines.add(block):
                    yield self._decoded_line(line)
            for line in lines.end():
                yield self._decoded_line(line)
        except httpx.HTTPError as error:
            raise self._broke_off(error) from error
        finally:
            await answer.aclose()

    def _decoded_line(self, line: bytes) -> Any:
        """Raises what a line `{"error": ...}` says, and BackendError for what is no JSON."""
        try:
            decoded = decode_json(line)
        except ValueError:
            raise self._not_understood(line) from None
        error = error_in(decoded)
        if error is not None:
            raise self._explained(error_of_event(error, self.where))
        return decoded

    def _object(self, line: bytes) -> dict[str, Any]:
        """As `_decoded_line`, for a line that holds an object."""
        decoded = self._decoded_line(line)
        if not isinstance(decoded, dict):
            raise self._not_understood(line)
        return decoded

    def _not_understood(self, line: bytes) -> BackendError:
        shown = line[:_MOST_SHOWN].decode(errors="replace")
        return BackendError(f"{self.where} answered something that cannot be understood: {shown}")

    def _failed(self, error: httpx.HTTPError) -> LlamaStackError:
        return connection_error(error, f"{self.where} was silent for {self._timeout_s:g} s")

    def _broke_off(self, error: httpx.HTTPError) -> LlamaStackError:
        """The error of a call whose answer had begun: the backend was up, so this is no ProviderUnavailableError."""
        failed = self._failed(error)
        return BackendError(f"{failed.message}, in the middle of an answer") if failed.status == 503 else failed
