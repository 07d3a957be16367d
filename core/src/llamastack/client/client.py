"""The HTTP client: every API of a llamastack server, generated from the same Protocols that the server serves."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

import httpx
import pydantic_core
from pydantic import TypeAdapter, ValidationError

from llamastack.api.definition import ApiDefinition, MethodDefinition, ReplyKind
from llamastack.api.files import OCTETS, File, is_media_type
from llamastack.client.multipart import Form
from llamastack.client.requests import WireRequest, wire_request
from llamastack.http.answer_limits import MOST_ERROR_BYTES, AnswerLimits, beginning_of, whole
from llamastack.http.client import PlainClient, authorities
from llamastack.http.connections import UNLIMITED, fresh_connections, is_stale_connection, retry_stale_connection
from llamastack.http.retry_headers import retry_after_of, should_retry_of
from llamastack.http.sse import iter_data
from llamastack.provider.api_handle import ApiHandle, Dispatch
from llamastack.provider.builtin_apis import BUILTIN_APIS
from llamastack.provider.connection_errors import connection_error
from llamastack.provider.context import PROVIDER_DATA_HEADER, current_context, provider_data_to_forward
from llamastack.provider.errors import BackendError, LlamaStackError
from llamastack.provider.errors_from_wire import error_from_wire
from llamastack.provider.streams import Stream, closing
from llamastack.provider.typed_calls import Apis

_FILENAME = re.compile(r"filename\*=UTF-8''([^;\s]+)", re.IGNORECASE)  # RFC 6266


class LlamaStackClient(Apis):
    """A llamastack server's APIs over HTTP.

    ```python
    async with LlamaStackClient("http://127.0.0.1:8321") as client:
        reply = await client.inference.chat_completion(model="m", messages=[UserMessage(content="Hi")])
    ```

    base_url: of the server. api_key: sent as `Authorization: Bearer`, for a server that wants one.
    provider_data: sent as `X-LlamaStack-ProviderData` with every request.
    forward_provider_data: send on the provider data of the request that is being served, for a provider that is itself
    a client. timeout_s: seconds between bytes. apis: those that it knows; `[*BUILTIN_APIS, *added]` with APIs that
    packages add. headers: further ones of every request. http: makes the requests instead of a client of its own.
    answer_limits: how long answers may be. ca_file: certificates of authorities that are trusted beside the usual ones,
    in PEM.

    Calls raise the same errors that the in-process stack raises.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8321",
        *,
        provider_data: Mapping[str, object] | None = None,
        forward_provider_data: bool = False,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 600.0,
        apis: Iterable[ApiDefinition] = BUILTIN_APIS,
        http: httpx.AsyncClient | None = None,
        answer_limits: AnswerLimits | None = None,
        ca_file: Path | None = None,
    ) -> None:
        url = httpx.URL(base_url)
        if url.userinfo:
            raise ValueError("the URL must not contain credentials; send them as headers")
        self.base_url = str(url).rstrip("/")
        self._lent = http is not None
        self._limits = answer_limits or AnswerLimits()
        self._http = http or PlainClient(
            timeout=httpx.Timeout(timeout_s, connect=10.0), verify=url.scheme == "https" and authorities(ca_file)
        )
        self._headers = {**({} if api_key is None else {"Authorization": f"Bearer {api_key}"}), **(headers or {})}
        self._provider_data = provider_data
        self._forward = forward_provider_data
        self._handles = {api.name: ApiHandle(api, self._dispatch_of) for api in apis}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections, unless the caller gave the `http` client; safe to call twice."""
        if not self._lent:
            await self._http.aclose()

    def api(self, name: str) -> ApiHandle:
        """An API by name. Raises LookupError."""
        handle = self._handles.get(name)
        if handle is None:
            raise LookupError(f"this client knows no API '{name}'; it knows {', '.join(self._handles)}")
        return handle

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self.api(name)
        except LookupError as error:
            raise AttributeError(str(error)) from None

    # ---- one call ------------------------------------------------------------------------------------------------

    def _dispatch_of(self, method: MethodDefinition) -> Dispatch:
        kind = method.reply_kind
        in_blocks = kind in (ReplyKind.FILE, ReplyKind.BYTE_STREAM)

        async def dispatch(arguments: dict[str, object]) -> object:
            events = kind is ReplyKind.JSON and method.gives_pieces(arguments)
            wire = wire_request(method, arguments)

            async def send() -> httpx.Response:
                request = self._request(wire, _accepted(method, events=events))
                if in_blocks:
                    request.headers["Accept-Encoding"] = "identity"  # else the announced size is another one
                    request.extensions[UNLIMITED] = True
                return await self._http.send(request, stream=True)

            try:
                response = await self._sent(send, wire.content)
            except httpx.HTTPError as error:
                raise self._translated(error) from error
            body = Stream(self._blocks(response), response.aclose)
            if response.is_error:
                async with closing(body):
                    raise _refusal(response, await beginning_of(body, MOST_ERROR_BYTES))
            if events:
                return await self._opened(method, response, body)
            if in_blocks:
                return _file_of(response, body) if kind is ReplyKind.FILE else body
            async with closing(body):
                content = await whole(body, self._limits.response_bytes, self.base_url)
            if kind is ReplyKind.BYTES:
                return content
            try:
                return method.result.validate_json(content or b"null", extra="ignore")
            except ValidationError as error:
                raise self._odd(method) from error

        return dispatch

    async def _sent(self, send: Callable[[], Awaitable[httpx.Response]], content: bytes | Form) -> httpx.Response:
        if isinstance(content, bytes) or content.repeatable:
            return await retry_stale_connection(send, is_stale_connection)
        # It can be sent only once, so it must not use a kept connection, which the server may have closed.
        try:
            with fresh_connections():
                return await send()
        finally:
            await content.aclose()

    def _request(self, wire: WireRequest, accepted: str) -> httpx.Request:
        headers = {"Accept": accepted, **wire.headers, **self._headers}
        if (trace := current_context().traceparent) is not None:
            headers["traceparent"] = trace
        if self._provider_data:
            headers[PROVIDER_DATA_HEADER] = json.dumps(dict(self._provider_data))
        elif self._forward and (forwarded := provider_data_to_forward()) is not None:
            headers[PROVIDER_DATA_HEADER] = forwarded
        return self._http.build_request(
            wire.verb, self.base_url + wire.path, params=wire.query, content=wire.content, headers=headers
        )

    async def _opened(self, method: MethodDefinition, response: httpx.Response, body: Stream[bytes]) -> Stream[object]:
        if method.piece is None or not response.headers.get("content-type", "").startswith("text/event-stream"):
            await body.aclose()
            raise self._odd(method)
        return Stream(self._pieces(method, method.piece, body), body.aclose)

    async def _pieces(
        self, method: MethodDefinition, adapter: TypeAdapter[object], body: Stream[bytes]
    ) -> AsyncIterator[object]:
        async with closing(body):
            async for data in iter_data(body, self._limits.event_bytes):
                try:
                    piece = adapter.validate_json(data, extra="ignore")
                except ValidationError:
                    raise _error_event(data) or self._odd(method) from None
                yield piece

    async def _blocks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        async with closing(response):
            try:
                async for block in response.aiter_bytes():
                    yield block
            except httpx.HTTPError as error:
                raise self._translated(error) from error

    def _odd(self, method: MethodDefinition) -> BackendError:
        return BackendError(f"{self.base_url} did not answer as {method.name} does")

    def _translated(self, error: httpx.HTTPError) -> LlamaStackError:
        return connection_error(error, f"{self.base_url} did not answer in time")


def _accepted(method: MethodDefinition, *, events: bool) -> str:
    if method.reply_kind is not ReplyKind.JSON:
        return "*/*"
    return "text/event-stream" if events else "application/json"


def _file_of(response: httpx.Response, blocks: Stream[bytes]) -> File:
    media_type = response.headers.get("content-type", "")
    size = response.headers.get("content-length", "")
    named = _FILENAME.search(response.headers.get("content-disposition", ""))
    return File(
        blocks,
        filename=unquote(named[1]) if named else None,
        media_type=media_type if is_media_type(media_type) else OCTETS,
        size=int(size) if size.isdecimal() else None,
    )


def _refusal(response: httpx.Response, content: bytes) -> LlamaStackError:
    error = error_from_wire(response.status_code, _parsed(content))
    # A proxy before the server may say what the server does not.
    return error.amend(
        retry_after=retry_after_of(response.headers) if error.retry_after is None else None,
        should_retry=should_retry_of(response.headers) if error.should_retry is None else None,
    )


def _error_event(data: bytes) -> LlamaStackError | None:
    body = _parsed(data)
    return error_from_wire(0, body) if isinstance(body, dict) and "error" in body else None


def _parsed(content: bytes) -> object:
    """The JSON value, or the text where it is none: as UTF-8, whatever charset the sender names."""
    try:
        return pydantic_core.from_json(content)
    except ValueError:
        return content.decode(errors="replace")
