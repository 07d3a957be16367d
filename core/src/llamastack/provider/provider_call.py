"""A call of a provider, as hooks see it: before it is made, and as an event."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import pydantic_core

__all__ = ["CallEvent", "Proceed", "ProviderCall"]


class ProviderCall:
    """One call, before it reaches the provider. It is not changed; `replaced` gives another one.

    api, method: of the native API, also for a request in OpenAI's form.
    identifier: of the object (model, shield, memory bank) that the call is for; "" where its API has none.
    provider_id: of the instance that is to be called.
    stream: whether pieces are wanted.
    body: JSON in OpenAI's form, in which the reply is, too: bytes, or mappings; None for a call of the native method.
    """

    __slots__ = ("_request", "_to_native", "api", "body", "identifier", "method", "provider_id", "stream")

    def __init__(
        self,
        api: str,
        method: str,
        identifier: str,
        provider_id: str,
        stream: bool,
        request: Mapping[str, object] | None,
        body: bytes | None = None,
        to_native: Callable[[Mapping[str, object]], Mapping[str, object]] | None = None,
    ) -> None:
        self.api = api
        self.method = method
        self.identifier = identifier
        self.provider_id = provider_id
        self.stream = stream
        self.body = body
        self._request = request
        self._to_native = to_native

    @property
    def request(self) -> Mapping[str, Any]:
        """The arguments of the native method; for a `body` its fields, parsed when this is read."""
        if self._request is None:
            self._request = pydantic_core.from_json(self.body or b"{}")
        return self._request

    @property
    def native_request(self) -> Mapping[str, Any]:
        """The arguments of the native method; for a `body` those that need a capability."""
        return self.request if self._to_native is None else self._to_native(self.request)

    def replaced(
        self,
        *,
        request: Mapping[str, object] | None = None,
        provider_id: str | None = None,
        identifier: str | None = None,
    ) -> ProviderCall:
        """A copy that asks for something else, or another instance.

        request: as `request` gives it, native values or OpenAI's fields. Whether pieces are wanted stays.
        provider_id: another instance of the same API. identifier: another object, served by that instance.
        """
        body = self.body if request is None or self.body is None else pydantic_core.to_json(request)
        return ProviderCall(
            self.api,
            self.method,
            self.identifier if identifier is None else identifier,
            self.provider_id if provider_id is None else provider_id,
            self.stream,
            self._request if request is None else request,
            body,
            self._to_native,
        )


Proceed = Callable[[ProviderCall], Awaitable[Any]]
"""Makes a call, by way of the hooks that come after; gives the reply, or an async iterator of pieces."""


class CallEvent(NamedTuple):
    """One call of a provider, when it starts and when it has ended.

    call_id: the same in both events. parent: id of the call inside which it was made, if any.
    api, method, identifier, provider_id, provider_type: what is called; `identifier` is the object's, or "".
    request_id: of the request over HTTP, if any.
    status: `started`, then `ok`, `error`, or `cancelled` where the caller went away or its time was over.
    error_code: of the error, where it is one.
    duration_s: seconds until the reply was complete.
    first_piece_s: seconds until the first piece of a stream.
    input_tokens, output_tokens: where the backend tells them.
    """

    call_id: str
    parent: str | None
    api: str
    method: str
    identifier: str
    provider_id: str
    provider_type: str
    request_id: str | None
    status: str = "started"
    error_code: str | None = None
    duration_s: float | None = None
    first_piece_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
