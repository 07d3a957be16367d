"""The ways in which a provider can be asked: natively and in OpenAI's form, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from llamastack.api.common import UserMessage
from llamastack.provider.errors import BackendError, InvalidRequestError, LlamaStackError, NotSupportedError
from llamastack_adapters.chat_request import ChatRequest
from llamastack_adapters.openai_dialect import chat_form
from llamastack_conformance.checks import CheckFailure
from llamastack_conformance.received import Received
from llamastack_conformance.replaying import KnownAnswers
from llamastack_conformance.running import Running
from llamastack_conformance.suites.forms import FormChecks
from llamastack_conformance.suites.forwarding import ForwardingChecks
from llamastack_conformance.suites.inference_calls import PLAIN, read

ANSWERS = KnownAnswers()
Ask = Callable[[Running, ChatRequest], Awaitable[Any]]


class Way(NamedTuple):
    """One way of asking. name: for messages. ask: its result is read to its end by `read`. native: a method of the API.

    `ask` returns None if the provider does not take the request in this way.
    """

    name: str
    ask: Ask
    native: bool

    @property
    def streamed(self) -> bool:
        """Whether its result is a stream."""
        return "streamed" in self.name


class AskingChecks(ForwardingChecks, FormChecks):
    """Calls for the checks that compare ways of asking, or look at what reaches the backend."""

    def ways(self, running: Running) -> Iterator[Way]:
        """The ways in which this provider takes chats."""
        streams = (False, True) if running.subject.declares("streaming") else (False,)
        for stream in streams:
            streamed = ", streamed" if stream else ""
            yield Way(f"chat_completion{streamed}", _native(stream), native=True)
            if hasattr(running.provider, "openai_chat"):
                yield Way(f"openai_chat{streamed}", self._in_form(stream), native=False)
            if hasattr(running.provider, "forward_openai"):
                yield Way(f"forward_openai{streamed}", self._as_bytes(stream), native=False)

    def _in_form(self, stream: bool) -> Ask:
        async def ask(running: Running, request: ChatRequest) -> Any:
            fields = chat_form(request, running.provider_id).fields
            return await self._asked(running, stream=stream, model=request.model, **fields)

        return ask

    def _as_bytes(self, stream: bool) -> Ask:
        async def ask(running: Running, request: ChatRequest) -> Any:
            fields = chat_form(request, running.provider_id).fields
            body = {"model": request.model, **fields, **({"stream": True} if stream else {})}
            return await self._forward(running, body)

        return ask

    async def replaying_ways(self, running: Running, model: str | None = None) -> AsyncIterator[tuple[Way, Received]]:
        """Each way, with the request of a plain chat.

        Later chats in that way get the backend's answer to the plain one again, so that no model computes for them.
        """
        given = ChatRequest(model or await self._model(running), [UserMessage(content="Say qzplain.")], PLAIN)
        for way in self.ways(running):
            kind = f"{way.name} of {given.model}"
            plain = await ANSWERS.prime(
                running.subject, running.tap, kind, partial(self.sent, running, way, given, "qzplain")
            )
            if plain:
                yield way, plain[-1]

    async def sent(self, running: Running, way: Way, request: ChatRequest, marker: str) -> list[Received]:
        """The requests by which a call reaches the backend; those that hold `marker`, which is part of the call.

        Empty if the provider refuses the request, or does not take it in this way. Raises CheckFailure if no request
        holds the marker, or if one is sent twice.
        """
        result, found = await received(running, way.ask(running, request))
        try:
            return [] if result is None else holding(marker, found, way.name, result)
        except NotSupportedError:
            return []
        except InvalidRequestError:
            if way.native:
                raise
            return []  # a field that `/v1` has and this backend lacks


def _native(stream: bool) -> Ask:
    async def ask(running: Running, request: ChatRequest) -> Any:
        given = {name: value for name, value in request._asdict().items() if value is not None}
        return await running.calls.chat_completion(**{**given, "stream": stream})

    return ask


async def received(running: Running, call: Awaitable[Any]) -> tuple[Any, list[Received]]:
    """The result of a call, read to its end, and the requests that the backend received meanwhile.

    An error is a result, too: the answer to another request, which is replayed, may not fit this one. Requests that the
    backend dropped with their connection do not count: a client may send them again.
    """
    running.tap.requests.clear()
    running.tap.dropped.clear()
    try:
        result = await read(await call)
    except (BackendError, InvalidRequestError, NotSupportedError) as error:
        result = error
    dropped = {id(request) for request in running.tap.dropped}
    return result, [Received(request) for request in running.tap.requests if id(request) not in dropped]


def holding(marker: str, found: list[Received], what: str, result: Any) -> list[Received]:
    """The requests that hold `marker`. Raises CheckFailure if there is none, or if one was sent twice.

    result: of the call; if it is an error, and there is no such request, the error is raised.
    """
    mine = [request for request in found if marker in request.words]
    if not mine and isinstance(result, LlamaStackError):
        raise result
    if not mine:
        raise CheckFailure(f"{what}: no request to the backend holds the text {marker!r} of the call")
    bodies = [(request.target, json.dumps(request.body)) for request in mine]
    if len(set(bodies)) < len(bodies):
        raise CheckFailure(f"{what}: the call reached the backend {len(bodies)} times", wanted="one request per call")
    return mine
