"""Uses the SDK's client over the provider's own connections. Failures become llamastack errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import anyio
import httpx2
from huggingface_hub import AsyncInferenceClient
from huggingface_hub.errors import (
    GenerationError,
    HfHubHTTPError,
    IncompleteGenerationError,
    InferenceTimeoutError,
    OverloadedError,
    TextGenerationError,
    ValidationError,
)
from huggingface_hub.inference._common import RequestParameters

from llamastack.http.answer_limits import AnswerLimits
from llamastack.http.client import authorities
from llamastack.http.connections import is_stale_connection, retry_stale_connection
from llamastack.http.sse import iter_data
from llamastack.provider.connection_errors import connection_error
from llamastack.provider.errors import BackendError, LlamaStackError
from llamastack.provider.streams import close, closing
from llamastack_adapters.credentials import ApiKey
from llamastack_adapters.decompression import ACCEPTED
from llamastack_adapters.error_bodies import error_in, error_of_answer, error_of_event, error_of_status
from llamastack_adapters.event_streams import EventStream, drain_briefly
from llamastack_adapters.non_streaming_replies import events_of, looks_like_events, looks_whole, pieces_of_event
from llamastack_adapters.openai_dialect import MALFORMED
from llamastack_adapters.remote_inference import RemoteConfig
from llamastack_adapters.sse_blocks import DONE
from llamastack_adapters.surrogate_pairs import decode_json
from llamastack_adapters.transports import guard

_T = TypeVar("_T")
Call = Callable[[AsyncInferenceClient], Awaitable[_T]]

_PLACEHOLDER = "none"
_AGENT = {"user-agent": "llamastack-provider-tgi"}
_LIMITS = httpx2.Limits(max_connections=1000, max_keepalive_connections=100)
_NOTHING_KEPT = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
_STATUSES: dict[type[TextGenerationError], int] = {
    ValidationError: 422,
    GenerationError: 424,
    OverloadedError: 429,
    IncompleteGenerationError: 500,
}


class _Client(AsyncInferenceClient):
    """The SDK's client for one call: a few attributes, no connection of its own.

    Each call has one, because the SDK holds every stream open until its client is closed. It gets a dummy token,
    because without one it would search this machine for one; the session sets the real token.
    """

    def __init__(self, url: str, session: httpx2.AsyncClient, limits: AnswerLimits) -> None:
        # The SDK passes its timeout to every request; None means no limit.
        timeout = cast(float, session.timeout)
        super().__init__(url, provider="hf-inference", token=_PLACEHOLDER, timeout=timeout, headers=_AGENT)
        self._session = session
        self._most_event_bytes = limits.event_bytes
        self.done = False
        """Whether a stream has sent its end marker."""

    async def _get_async_client(self) -> httpx2.AsyncClient:
        return self._session

    async def _inner_post(self, request_parameters: RequestParameters, *, stream: bool = False) -> Any:
        """The SDK's client with other streams: the SDK's own split at Unicode line breaks inside a text, require a
        blank in `data: [DONE]`, and stay open.
        """
        if not stream:
            return await super()._inner_post(request_parameters)
        response = await self.exit_stack.enter_async_context(
            self._session.stream(
                "POST", request_parameters.url, json=request_parameters.json, headers=request_parameters.headers
            )
        )
        lines = self._lines(response)
        self.exit_stack.push_async_callback(lines.aclose)
        return lines

    async def _lines(self, response: httpx2.Response) -> AsyncGenerator[str, None]:
        """One line per event, also for a whole reply in place of a stream."""
        here = where(str(response.request.url))
        kind = response.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            content = await response.aread()
            if not (looks_whole(content) or looks_like_events(content)):
                raise BackendError(f"{here} answered a stream with {kind[:100] or 'no content-type'}")
            blocks = _of_whole(content, here)
        else:
            blocks = response.aiter_bytes()
        async with closing(blocks), closing(iter_data(blocks, self._most_event_bytes)) as events:
            begun = False
            async for data in events:
                if data == DONE:
                    self.done = True
                    await drain_briefly(events)  # the SDK reads no further than the end marker
                pieces = None if begun else pieces_of_event(data)
                begun = True
                if pieces is None:
                    yield f"data: {data.decode()}"
                else:
                    for piece in pieces:
                        yield piece.decode().rstrip("\n")


async def _of_whole(content: bytes, here: str) -> AsyncGenerator[bytes, None]:
    if looks_whole(content):
        try:
            content = events_of(decode_json(content), usage_apart=False)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise BackendError(f"{here} answered a stream with JSON without 'choices'") from None
    yield content


class HuggingFaceBackend:
    """Calls of the SDK at any URL, through one pool of connections.

    Calls raise llamastack errors without a provider_id; the stack adds it. Cancelling a call or closing a stream closes
    its connection, so the backend can stop its work.
    """

    def __init__(self, config: RemoteConfig, key: ApiKey) -> None:
        self._key = key
        self._timeout_s = config.timeout_s
        self._retries = config.retries
        self._limits = config.answer_limits

        def made(limits: httpx2.Limits) -> httpx2.AsyncClient:
            return httpx2.AsyncClient(
                auth=self._authorized,
                event_hooks={"response": [self._checked]},
                headers={"accept-encoding": ACCEPTED},
                timeout=httpx2.Timeout(config.timeout_s, connect=config.connect_timeout_s),
                limits=limits,
                verify=authorities(config.ca_file),
                # A cookie from one client's answer must not be sent with another client's call.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            )

        self._session = guard(made(_LIMITS), self._limits, lambda: made(_NOTHING_KEPT), httpx2)

    async def aclose(self) -> None:
        """Close the connections; safe to call twice."""
        await self._session.aclose()

    async def whole(self, url: str, call: Call[_T]) -> _T:
        """The result of `call` with a client for `url`."""

        async def once() -> _T:
            async with _Client(url, self._session, self._limits) as client:
                with self._translated(url):
                    return await retry_stale_connection(lambda: call(client), is_stale_connection)

        return await self._retries.run(once)

    async def stream(self, url: str, call: Call[Any]) -> EventStream[Mapping[str, Any]]:
        """The pieces of `call` with a client for `url`.

        Returns when the first one is there, because a refusal can be the first event of a stream with status 200.
        """
        return await self._retries.run(lambda: self._begin(url, call))

    async def get(self, url: str, **params: str) -> Any:
        """The decoded JSON at `url`; None for a 404."""

        async def once() -> Any:
            with self._translated(url):
                response = await retry_stale_connection(
                    lambda: self._session.get(url, params=params, headers=_AGENT), is_stale_connection
                )
                return response.json() if response.is_success else None

        return await self._retries.run(once)

    async def info(self, url: str) -> Mapping[str, Any] | None:
        """The /info of the server at `url`; None if it is not Text Generation Inference."""

        async def ask(client: AsyncInferenceClient) -> Any:
            try:
                return await client.get_endpoint_info()
            except HfHubHTTPError:
                return None

        answer = await self.whole(url, ask)
        if answer is not None and not (isinstance(answer, dict) and isinstance(answer.get("model_id"), str)):
            raise BackendError(f"{where(url)} answered something else than what it serves at /info")
        return answer

    async def _begin(self, url: str, call: Call[Any]) -> EventStream[Mapping[str, Any]]:
        client = _Client(url, self._session, self._limits)
        pieces: AsyncIterator[Mapping[str, Any]] | None = None

        async def end() -> None:
            with anyio.CancelScope(shield=True):
                await close(pieces)
                await client.close()  # type: ignore[no-untyped-call]

        try:
            with self._translated(url):
                answer = await retry_stale_connection(lambda: call(client), is_stale_connection)
                pieces = aiter(cast(AsyncIterable[Mapping[str, Any]], answer))
                first = await anext(pieces, None)
        except BaseException:
            await end()
            raise
        began = pieces

        async def events(done: Callable[[], None]) -> AsyncIterator[Mapping[str, Any]]:
            async with closing(self._pieces(url, first, began, end)) as read:
                async for piece in read:
                    yield piece
            if client.done:
                done()

        return EventStream(events, end)

    async def _pieces(
        self,
        url: str,
        first: Mapping[str, Any] | None,
        rest: AsyncIterator[Mapping[str, Any]],
        end: Callable[[], Awaitable[None]],
    ) -> AsyncIterator[Mapping[str, Any]]:
        try:
            if first is not None:
                yield first
            with self._translated(url, began=True):
                async for piece in rest:
                    yield piece
        finally:
            await end()

    def _authorized(self, request: httpx2.Request) -> httpx2.Request:
        request.headers.pop("authorization", None)
        request.headers.update(self._key.bearer())
        return request

    async def _checked(self, response: httpx2.Response) -> None:
        """Raise for an error answer before the SDK sees it, because the SDK handles some in its own way."""
        here = where(str(response.request.url))
        if response.is_success:
            json_answer = response.headers.get("content-type", "").startswith("application/json")
            if json_answer and response.request.method == "POST" and b'"error"' in await response.aread():
                self._check_inside(response.content, here)
            return
        content = await response.aread()
        if response.request.method == "GET" and response.status_code in (404, 405):
            return  # the caller handles it
        raise self._key.explained(error_of_answer(response.status_code, response.headers, content, here))

    def _check_inside(self, content: bytes, here: str) -> None:
        try:
            answer = decode_json(content)
        except ValueError:
            return  # the SDK raises it
        error = error_in(answer)
        if error is not None and not (isinstance(answer, dict) and answer.get("choices")):
            raise self._key.explained(error_of_event(error, here, "answered with an error"))

    @contextmanager
    def _translated(self, url: str, *, began: bool = False) -> Iterator[None]:
        """The llamastack error for an exception of the SDK."""
        here = where(url)
        try:
            yield
        except InferenceTimeoutError as error:
            raise self._failed(error.__cause__ or error, here) from error
        except TextGenerationError as error:
            raise _error_of_event(error, here, "broke off" if began else "refused") from error
        except httpx2.HTTPError as error:
            raise self._failed(error, here) from error
        except MALFORMED as error:
            words = " ".join(str(error).split())
            raise BackendError(f"{here} answered something that cannot be understood: {words}") from error

    def _failed(self, error: BaseException, here: str) -> LlamaStackError:
        return connection_error(error, f"{here} was silent for {self._timeout_s:g} s")


def where(url: str) -> str:
    """Scheme, host and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _error_of_event(error: TextGenerationError, who: str, what: str) -> LlamaStackError:
    """The error for an error event. In a stream of text it has a type, for which the SDK has a class; in a chat it is
    an object with its status.
    """
    words = error.args[0] if error.args else ""
    if isinstance(words, dict):
        return error_of_event(words, who, what)
    return error_of_status(_STATUSES.get(type(error), 502), f"{who} {what}: {words}")
