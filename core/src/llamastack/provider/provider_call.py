"""A call of a provider, as hooks see it: before it is made, and as an event."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import pydantic_core

__all__ = ["CallEvent", "Proceed", "ProviderCall", "ProviderMethod", "ReadTokens", "Tokens"]

Tokens = tuple[int | None, int | None] | tuple[int | None, int | None, int | None]
"""Tokens of the input and of the output, and of the input those from a cache; None for a number that is not known."""
ReadTokens = Callable[[object], Tokens | None]
"""The tokens that a reply, or a piece of one, reports; None if it reports none."""


def native_tokens(reply: object) -> Tokens | None:
    """The tokens in the `usage` of a native reply, a `TokenUsage`, or of the last event of a stream."""
    usage = getattr(reply, "usage", None) or getattr(getattr(reply, "event", None), "usage", None)
    found = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
    return found if isinstance(found[0], int) else None


def announces_native(piece: object) -> bool:
    """Whether it is the event of a stream that comes before the model has made anything."""
    return getattr(getattr(piece, "event", None), "event_type", None) == "start"


# perf: llamastack-v1. Not frozen, because creating a frozen one takes three times as long.
@dataclass(slots=True, eq=False, repr=False)
class ProviderCall:
    """One call, before it reaches the provider. Nobody changes it; `replaced` gives another one.

    api, method: of the native API, also for a request in another form.
    identifier: of the object (model, shield, memory bank) that the call is for; "" where its API has none.
    provider_id: of the instance that is to be called.
    stream: whether pieces are wanted.
    request: the arguments of the native method; where there is a `body`, its fields.
    body: JSON in the form that `by` takes; the reply has this form, too. None for a call of the native method.
    by: the provider's method that takes it.
    target: the instance, where the stack has found it already.
    """

    api: str
    method: str
    identifier: str
    provider_id: str
    stream: bool
    request: Mapping[str, Any]
    body: bytes | None
    by: ProviderMethod
    target: object = None
    _argument: Any = field(default=None, init=False)

    def argument(self) -> Any:
        """What the provider's method takes. It is made once."""
        if self._argument is None:
            self._argument = self.by.argument(self)
        return self._argument

    def replaced(
        self,
        *,
        request: Mapping[str, object] | None = None,
        provider_id: str | None = None,
        identifier: str | None = None,
    ) -> ProviderCall:
        """A copy that asks for something else, or another instance.

        request: in the form of `request`. Whether pieces are wanted stays.
        provider_id: another instance of the same API. identifier: another object, served by that instance.
        """
        return replace(
            self,
            identifier=self.identifier if identifier is None else identifier,
            provider_id=self.provider_id if provider_id is None else provider_id,
            request=self.request if request is None else request,
            body=self.body if request is None or self.body is None else pydantic_core.to_json(request),
            target=self.target if provider_id is None and identifier is None else None,
        )


@dataclass(frozen=True, slots=True)
class ProviderMethod:
    """A method of providers: one of their API's Protocol, or one that a provider may have beside it.

    name: its name. native: the method of the API that does the same; what a provider declares of that counts here, too.
    argument: makes what it takes, out of a call. by_name: whether that is a mapping of several arguments.
    needs: from `ProviderCall.request` to the arguments of the native method that may need a capability.
    takes: name of a method that says whether an argument is taken; a provider without that method takes all.
    tokens: reads the tokens of its replies, for call events. announces: whether the piece of a stream holds nothing of
    the model yet; it is not asked after the first that does.
    """

    name: str
    native: str
    argument: Callable[[ProviderCall], Any]
    needs: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    takes: str = ""
    by_name: bool = False
    tokens: ReadTokens = native_tokens
    announces: Callable[[object], bool] = announces_native

    async def is_taken(self, provider: object, call: ProviderCall) -> bool:
        """Whether the provider has this method, and takes the call by it."""
        if not hasattr(provider, self.name):
            return False
        takes = getattr(provider, self.takes, None) if self.takes else None
        return takes is None or bool(await takes(call.argument()))

    def send(self, provider: object, call: ProviderCall) -> Awaitable[object]:
        """Call the provider."""
        function: Callable[..., Awaitable[object]] = getattr(provider, self.name)
        return function(**call.argument()) if self.by_name else function(call.argument())


Proceed = Callable[[ProviderCall], Awaitable[Any]]
"""Makes a call, through the hooks that come after; gives the reply, or an async iterator of pieces."""


class CallEvent(NamedTuple):
    """One call of a provider, when it starts and when it has ended.

    call_id: the same in both events. parent: id of the call inside which it was made, if any.
    api, method, identifier, provider_id, provider_type: what is called; `identifier` is the object's, or "".
    request_id: of the request over HTTP, if any.
    traceparent: of its span, from `llamastack_begin_span`; None if it has none.
    parent_span: traceparent of the span that it is a part of, if any.
    call: the call. It holds the request, which no log may have; do not keep it.
    status: `started`, then `ok`, `error`, or `cancelled` where the caller went away or its time was over.
    error_code, error_message: of the error, where it is one.
    duration_s: seconds until the reply was complete.
    first_piece_s: seconds until the first piece of a stream that is more than the announcement of the others.
    reply: the whole reply, or the last pieces of a stream as a tuple; None if there is none. Do not keep it.
    input_tokens, output_tokens: where the backend tells them. cached_tokens: those of the input that came from a cache.
    """

    call_id: str
    parent: str | None
    api: str
    method: str
    identifier: str
    provider_id: str
    provider_type: str
    request_id: str | None
    traceparent: str | None = None
    parent_span: str | None = None
    call: ProviderCall | None = None
    status: str = "started"
    error_code: str | None = None
    error_message: str | None = None
    duration_s: float | None = None
    first_piece_s: float | None = None
    reply: object = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None

    def __repr__(self) -> str:
        return f"<CallEvent {self.call_id} {self.api}.{self.method} {self.status}>"  # the reply must not reach a log
