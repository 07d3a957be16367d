"""A backend over HTTP: one client for the life of a provider, failures as errors of the family."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx
import pydantic_core

from llamastack.provider.errors import BackendError, LlamaStackError, ProviderTimeoutError
from llamastack.provider.exchange import Answer, Exchanges
from llamastack.provider.http import (
    error_class_of,
    once_more_if_dropped,
    reason_of_http_error,
    was_dropped,
)
from llamastack.provider.refusals import error_of_answer, error_of_event
from llamastack.provider.remote import RemoteConfig
from llamastack.provider.sse import event_data, whole_events
from llamastack.provider.streams import EventStream, Stream, run_out
from llamastack.provider.surrogates import decode_json, whole_texts

_DONE = b"[DONE]"
_LOOKED_AT = 200  # bytes at the beginning of a reply
# As many as there are clients: a call that waits for a connection would wait without a word, and so would the asking of
# how the backend is.
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=100)


def _nothing() -> dict[str, str]:
    return {}


def _as_it_is(error: LlamaStackError) -> LlamaStackError:
    return error


class HttpBackend:
    """JSON over HTTP, with server-sent events.

    url: of the backend; paths are put behind it.
    config: its time limits and retries count.
    headers: called for each request; gives the headers to add to it.
    explained: takes the error of an answer and gives the one to raise.
    options: for `http_client`.

    Calls raise errors of the family; they carry no provider_id, which the stack puts in. Cancelling a call, or closing
    a stream, closes its connection, by which the backend knows.
    """

    def __init__(
        self,
        url: str,
        config: RemoteConfig,
        *,
        headers: Callable[[], Mapping[str, str]] = _nothing,
        explained: Callable[[LlamaStackError], LlamaStackError] = _as_it_is,
        **options: Any,
    ) -> None:
        self.url: str = url.rstrip("/")
        """Of the backend, without a slash at its end."""
        parts = httpx.URL(url)
        self.where: str = f"{parts.scheme}://{parts.netloc.decode()}"
        """Scheme, host and port of the backend, for error messages."""
        self._timeout_s = config.timeout_s
        self._retries = config.retries
        self._headers = headers
        self._explained = explained
        if parts.scheme == "http":
            # There is no certificate to verify, and no reason to read those of the authorities.
            options.setdefault("verify", False)
        self._exchanges = Exchanges(
            timeout=httpx.Timeout(config.timeout_s, connect=config.connect_timeout_s),
            **{"limits": _LIMITS, **options},
        )

    async def aclose(self) -> None:
        """Close the connections; safe to call twice."""
        await self._exchanges.aclose()

    async def get(self, path: str) -> Any:
        """The decoded JSON at `path`."""
        return self._json(path, await self._retries.run(lambda: self._whole("GET", path, None)))

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The decoded JSON that answers `body`."""
        content = pydantic_core.to_json(body)
        return self._json(path, await self._retries.run(lambda: self._whole("POST", path, content)))

    async def events(self, path: str, body: Mapping[str, Any]) -> EventStream[Any]:
        """The decoded data of each event that answers `body`, until `[DONE]` or the end.

        Texts in it may have halves of surrogate pairs, whose other halves are in other events.

        Returns when the backend has begun to answer, so that a refusal is raised here.
        """
        content = pydantic_core.to_json(body)
        answer = await self._retries.run(lambda: self._stream(path, content))
        return EventStream(lambda done: self._decoded(answer, done), answer.aclose)

    async def forward(self, path: str, body: bytes) -> bytes:
        """The JSON object that answers `body`, as it came.

        At a rate limit it is not made again: the client whose body it is does that itself.
        """
        content = await self._whole("POST", path, body)
        if not content.startswith(b"{") and not content.lstrip().startswith(b"{"):
            raise BackendError(f"{self.where}{path} answered something else than a JSON object")
        if b'"error"' in content[:_LOOKED_AT]:
            answer = self._json(path, content)
            if answer.get("error") and "choices" not in answer and "data" not in answer:
                raise error_of_event(answer["error"], self.where)
        return content

    async def forward_events(self, path: str, body: bytes) -> Stream[bytes]:
        """The events that answer `body`, as they come: blocks of one or several whole events.

        Returns when the backend has begun to answer, so that a refusal is raised here.
        """
        answer = await self._stream(path, body)
        return Stream(self._events(answer), answer.aclose)

    async def _stream(self, path: str, body: bytes) -> Answer:
        answer = await self._begin("POST", path, body, "text/event-stream")
        kind = answer.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            await answer.aclose()
            raise BackendError(f"{self.where} answered a stream with {kind or 'no content-type'}")
        return answer

    async def _whole(self, method: str, path: str, body: bytes | None) -> bytes:
        return await self._read(await self._begin(method, path, body, "application/json"))

    def _json(self, path: str, content: bytes) -> Any:
        try:
            return pydantic_core.from_json(content)
        except ValueError:
            pass  # perhaps for a detail
        try:
            return whole_texts(decode_json(content))
        except ValueError:
            raise BackendError(f"{self.where}{path} answered something else than JSON") from None

    async def _begin(self, method: str, path: str, body: bytes | None, accept: str) -> Answer:
        """The answer up to its head. Raises for one that is an error."""
        headers = {"Accept": accept, "Content-Type": "application/json", **self._headers()}
        try:
            answer = await once_more_if_dropped(
                lambda: self._exchanges.send(method, self.url + path, headers, body), was_dropped
            )
        except httpx.HTTPError as error:
            raise self._failed(error) from error
        if 200 <= answer.status < 300:
            return answer
        content = await self._read(answer)
        raise self._explained(error_of_answer(answer.status, answer.headers, content, self.where))

    async def _read(self, answer: Answer) -> bytes:
        try:
            return await answer.read()
        except httpx.HTTPError as error:
            raise self._broke_off(error) from error
        finally:
            await answer.aclose()

    async def _events(self, answer: Answer) -> AsyncIterator[bytes]:
        try:
            async for block in whole_events(answer.blocks()):
                yield block
        except httpx.HTTPError as error:
            raise self._broke_off(error) from error
        finally:
            await answer.aclose()

    async def _decoded(self, answer: Answer, done: Callable[[], None]) -> AsyncIterator[Any]:
        try:
            events = event_data(answer.blocks())
            async for data in events:
                if data == _DONE:
                    done()
                    await run_out(events)
                    return
                try:
                    decoded = decode_json(data)
                except ValueError:
                    raise BackendError(
                        f"{self.where} sent an event that is not JSON: {data.decode(errors='replace')}"
                    ) from None
                yield decoded
        except httpx.HTTPError as error:
            raise self._broke_off(error) from error
        finally:
            await answer.aclose()

    def _failed(self, error: httpx.HTTPError) -> LlamaStackError:
        kind = error_class_of(error)
        if kind is ProviderTimeoutError:
            return kind(f"{self.where} was silent for {self._timeout_s:g} s")
        return kind(reason_of_http_error(error))

    def _broke_off(self, error: httpx.HTTPError) -> LlamaStackError:
        """The same once the backend has begun to answer: it was there, so it is not said to be down."""
        failed = self._failed(error)
        return BackendError(f"{failed.message}, in the middle of an answer") if failed.status == 503 else failed
