"""The routes of `/v1`, as data, and their endpoints."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import anyio
from anyio.lowlevel import checkpoint
from pydantic import TypeAdapter, ValidationError

from llamastack.api.common import UserMessage
from llamastack.provider.api_handle import Dispatch
from llamastack.provider.errors import (
    ContextLengthExceededError,
    InvalidRequestError,
    LlamaStackError,
    ObjectNotFoundError,
)
from llamastack.provider.routes import Route, RouteGroup, Scope
from llamastack.provider.streams import Stream, close
from llamastack.provider.validation import invalid_request
from llamastack.stack import Stack
from llamastack_openai_api import from_native, to_native
from llamastack_openai_api.errors import OPENAI_ERRORS, PREFIX
from llamastack_openai_api.openapi import openai_openapi
from llamastack_openai_api.requests import (
    CHAT,
    COMPLETION,
    EMBEDDINGS,
    MODERATION,
    ChatCompletionRequest,
    CompletionRequest,
    TextPart,
)
from llamastack_openai_api.sampling import another_seed
from llamastack_openai_api.schemas import ANSWERS, Schema, reference_to
from llamastack_openai_api.stack_routes import STACK_ROUTES, StackEndpoint
from llamastack_server import Endpoint, json_object, json_of

MOST_ANSWERS = 2048
"""How many calls of a provider one request may be: prompts times answers to each, or texts to moderate."""
_MOST_AT_ONCE = 128
_MADE_AT_ONCE = 1000
_LARGE = 2**16  # bytes
_T = TypeVar("_T")
Answer = bytes | AsyncIterator[bytes]


@dataclass(frozen=True)
class OpenAIRoute:
    """One route of the surface.

    path: below `/v1/`. api, method: the native method that it is served by. request: what its body must be.
    answer: makes the answer. reference: where the format is described. prompt: the field that the model reads.
    """

    path: str
    api: str
    method: str
    answer: Callable[[Surface, Any, bytes], Awaitable[Answer]]
    reference: str
    request: TypeAdapter[Any] | None = None
    prompt: str | None = None

    @property
    def http_method(self) -> str:
        return "GET" if self.request is None else "POST"

    @property
    def summary(self) -> str:
        return f"OpenAI's /{self.path}, by {self.api}.{self.method}"

    @property
    def result(self) -> Schema:
        """The schema of the answer. OpenAI's own reference describes it in full."""
        return reference_to(ANSWERS[self.path][0])

    @property
    def piece(self) -> Schema | None:
        """The schema of what each event of a stream holds."""
        name = ANSWERS[self.path][1]
        return None if name is None else reference_to(name)

    @property
    def route(self) -> str:
        """The path as the server knows it. Names of models have slashes."""
        return PREFIX + self.path.replace("}", ":path}")


class Surface:
    """What the routes need of a running stack."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    def call(self, api: str, method: str) -> Dispatch:
        """A native method, for arguments that are valid."""
        return self.stack.api(api).methods[method].dispatch

    async def forwarded(
        self,
        route: str,
        method: str,
        given: Mapping[str, Any],
        body: bytes,
        uses: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    ) -> Answer | None:
        """The answer of a backend that speaks OpenAI's API; None where there is none for this model.

        given: the request, of which only the model and `stream` are looked at: the backend judges the rest.
        """
        lane = self.stack.openai_forwarder
        model, stream = given.get("model"), given.get("stream", False)
        if lane is None or not isinstance(model, str) or not model or not isinstance(stream, bool):
            return None  # where it does not fit, the translation says so
        return await lane.forward(method, route, model, body, given=given, stream=stream, uses=uses)


class OpenAIEndpoint(Endpoint):
    """One route of the surface."""

    def __init__(self, route: OpenAIRoute, surface: Surface) -> None:
        super().__init__(OPENAI_ERRORS)
        self._route = route
        self._surface = surface

    async def respond(self, scope: Scope, body: bytes) -> Answer:
        if self._route.request is None:
            return await self._route.answer(self._surface, scope.get("path_params", {}).get("model"), body)
        given = json_object(body or b"{}")
        if None in given.values():
            given = {name: value for name, value in given.items() if value is not None}
        return await self._route.answer(self._surface, given, body)

    def complete(self, error: LlamaStackError) -> None:
        if isinstance(error, ContextLengthExceededError):
            error.amend(param=error.param or self._route.prompt)


# ---- answers ---------------------------------------------------------------------------------------------------------


def _read(adapter: TypeAdapter[_T], given: Mapping[str, Any]) -> _T:
    """Raises InvalidRequestError for a request that does not fit."""
    try:
        return adapter.validate_python(given)
    except ValidationError as error:
        raise invalid_request(error, adapter, given) from None


async def _chat(surface: Surface, given: Mapping[str, Any], body: bytes) -> Answer:
    forwarded = await surface.forwarded(
        "chat/completions", "chat_completion", given, body, to_native.requested_capabilities
    )
    if forwarded is not None:
        return forwarded
    await _let_others(body)
    request = _read(CHAT, given)
    await _let_others(body)
    arguments = to_native.chat_arguments(request, await _in_turns(to_native.messages_of(request.messages)))
    await _let_others(body)
    logprobs = arguments.get("logprobs")
    call = surface.call("inference", "chat_completion")
    calls = [{"model": request.model, **each} for each in _times(arguments, request.n or 1)]
    most_calls = 1 if request.parallel_tool_calls is False else None
    if not request.stream:
        replies = await _together(call, calls)
        return from_native.chat_completion(replies, request.model, logprobs, most_calls=most_calls)
    way = from_native.StreamOptions(request.model, logprobs, _wants_usage(request), most_calls)
    return await _streams(call, calls, lambda streams: from_native.chat_events(streams, way))


async def _completion(surface: Surface, given: Mapping[str, Any], body: bytes) -> Answer:
    forwarded = await surface.forwarded("completions", "completion", given, body, to_native.asked_of_completion)
    if forwarded is not None:
        return forwarded
    to_native.refuse_tokens(given.get("prompt"), "prompt")
    request = _read(COMPLETION, given)
    prompts = to_native.completion_arguments(request)
    _refuse_more_answers(len(prompts) * (request.n or 1), "prompt")
    logprobs = prompts[0].get("logprobs")
    call = surface.call("inference", "completion")
    calls = [{"model": request.model, **each} for prompt in prompts for each in _times(prompt, request.n or 1)]
    if not request.stream:
        replies = await _together(call, calls)
        return from_native.completion(replies, request.model, logprobs, prompts=len(prompts))
    way = from_native.StreamOptions(request.model, logprobs, _wants_usage(request), prompts=len(prompts))
    return await _streams(call, calls, lambda streams: from_native.completion_events(streams, way))


async def _embeddings(surface: Surface, given: Mapping[str, Any], body: bytes) -> Answer:
    forwarded = await surface.forwarded("embeddings", "embeddings", given, body, lambda _: {})
    if forwarded is not None:
        return forwarded
    to_native.refuse_tokens(given.get("input"), "input")
    request = _read(EMBEDDINGS, given)
    arguments = to_native.embeddings_arguments(request)
    if request.dimensions is not None:
        model = await surface.call("models", "get_model")({"identifier": request.model})
        _check_dimensions(request.dimensions, None if model is None else model.metadata.get("embedding_dimension"))
    reply = await surface.call("inference", "embeddings")({"model": request.model, **arguments})
    if request.dimensions is not None:
        _check_dimensions(request.dimensions, len(reply.embeddings[0]))
    return from_native.embeddings(reply, request.model, request.encoding_format or "float")


def _check_dimensions(wanted: int, own: object) -> None:
    """Raises InvalidRequestError where the model has others, as far as they are known."""
    if isinstance(own, int) and wanted != own:
        raise InvalidRequestError(f"the embeddings of this model have {own} dimensions", param="dimensions")


async def _moderations(surface: Surface, given: Mapping[str, Any], body: bytes) -> Answer:
    request = _read(MODERATION, given)
    shield = request.model or await _only_shield(surface)
    parts = [request.input] if isinstance(request.input, str) else request.input
    texts: list[str] = []
    for place, part in enumerate(parts):
        if not isinstance(part, str | TextPart):
            raise InvalidRequestError("shields take no images here", param=f"input[{place}]")
        texts.append(part if isinstance(part, str) else part.text)
    if not all(isinstance(part, str) for part in parts):
        texts = ["\n".join(texts)]  # parts are of one input
    _refuse_more_answers(len(texts), "input")
    call = surface.call("safety", "run_shield")
    verdicts = await _together(
        call, [{"shield_type": shield, "messages": [UserMessage(content=text)]} for text in texts]
    )
    return from_native.moderation(verdicts, shield)


async def _only_shield(surface: Surface) -> str:
    shields = await surface.call("shields", "list_shields")({})
    names = [shield.identifier for shield in shields]
    if len(names) != 1:
        raise InvalidRequestError(
            f"'model' must name a shield; served: {', '.join(names) or 'none'}",
            param="model",
        )
    return str(names[0])


async def _models(surface: Surface, name: str | None, body: bytes) -> bytes:
    data: dict[str, dict[str, Any]] = {}
    for model in await surface.call("models", "list_models")({}):
        if model.unavailable_reason is None:
            # The plain name is that of the one who answers to it.
            known = await surface.call("models", "get_model")({"identifier": model.identifier})
            plain = known is not None and known.provider_id == model.provider_id
            shown = model.identifier if plain else f"{model.provider_id}/{model.identifier}"
            data[shown] = from_native.model_entry(model, shown)
    return json_of({"object": "list", "data": list(data.values())})


async def _model(surface: Surface, name: str, body: bytes) -> bytes:
    model = await surface.call("models", "get_model")({"identifier": name})
    if model is None:
        served = await surface.call("models", "list_models")({})
        raise ObjectNotFoundError("model", name, available=[one.identifier for one in served], param="model")
    return json_of(from_native.model_entry(model, name))


def _wants_usage(request: ChatCompletionRequest | CompletionRequest) -> bool:
    return request.stream_options is not None and bool(request.stream_options.include_usage)


def _times(arguments: dict[str, Any], n: int) -> list[dict[str, Any]]:
    """Arguments for `n` answers; a seed makes each repeatable, and one seed would make them all the same."""
    params = arguments["sampling_params"]
    return [{**arguments, "sampling_params": another_seed(params, number)} for number in range(n)]


async def _together(call: Callable[[dict[str, Any]], Awaitable[_T]], several: Sequence[dict[str, Any]]) -> list[_T]:
    """The replies to several calls, many of them made at the same time. Raises the first failure, which ends the
    others.
    """
    if len(several) == 1:
        return [await call(dict(several[0]))]
    replies: dict[int, _T] = {}
    failures: list[Exception] = []
    waiting = iter(enumerate(several))

    async def work() -> None:
        for place, arguments in waiting:
            try:
                replies[place] = await call(dict(arguments))
            except Exception as error:
                failures.append(error)
                group.cancel_scope.cancel()
                return
            await checkpoint()  # a call may answer at once, and others want a turn

    try:
        async with anyio.create_task_group() as group:
            for _ in range(min(len(several), _MOST_AT_ONCE)):
                group.start_soon(work)
    except BaseException:
        await _close_all(replies.values())
        raise
    if failures:
        await _close_all(replies.values())
        try:
            raise failures[0]
        finally:
            failures.clear()  # else it and this frame would hold each other
    return [replies[place] for place in range(len(several))]


def _refuse_more_answers(number: int, param: str) -> None:
    """Raises InvalidRequestError where one request would be too many calls of a provider."""
    if number > MOST_ANSWERS:
        raise InvalidRequestError(f"asks for {number} answers; one request may have {MOST_ANSWERS}", param=param)


async def _let_others(body: bytes) -> None:
    """Others get a turn between the steps of what takes long."""
    if len(body) > _LARGE:
        await checkpoint()


async def _in_turns(items: Iterator[_T]) -> list[_T]:
    """All of them, made a few at a time, so that others get a turn in between."""
    made: list[_T] = []
    while part := list(itertools.islice(items, _MADE_AT_ONCE)):
        made += part
        if len(part) == _MADE_AT_ONCE:
            await checkpoint()
    return made


async def _close_all(several: Iterable[object]) -> None:
    """Each of them, though one may fail. A client that goes away does not stop it."""
    with anyio.CancelScope(shield=True):
        async with AsyncExitStack() as closing:
            for one in several:
                closing.push_async_callback(close, one)


async def _streams(
    call: Dispatch,
    several: Sequence[dict[str, Any]],
    events: Callable[[Sequence[AsyncIterator[Any]]], AsyncIterator[bytes]],
) -> Stream[bytes]:
    streams = await _together(call, [{**arguments, "stream": True} for arguments in several])

    return Stream(events(streams), lambda: _close_all(streams))


_REFERENCE = "https://platform.openai.com/docs/api-reference"
ROUTES = (
    OpenAIRoute("models", "models", "list_models", _models, f"{_REFERENCE}/models/list"),
    OpenAIRoute("models/{model}", "models", "get_model", _model, f"{_REFERENCE}/models/retrieve"),
    OpenAIRoute(
        "chat/completions", "inference", "chat_completion", _chat, f"{_REFERENCE}/chat/create", CHAT, "messages"
    ),
    OpenAIRoute(
        "completions", "inference", "completion", _completion, f"{_REFERENCE}/completions/create", COMPLETION, "prompt"
    ),
    OpenAIRoute(
        "embeddings", "inference", "embeddings", _embeddings, f"{_REFERENCE}/embeddings/create", EMBEDDINGS, "input"
    ),
    OpenAIRoute("moderations", "safety", "run_shield", _moderations, f"{_REFERENCE}/moderations/create", MODERATION),
)


def openai_routes(stack: Stack) -> RouteGroup:
    """The routes whose APIs the stack has."""
    surface = Surface(stack)
    offered = [route for route in ROUTES if route.api in stack.apis]
    others = [route for route in STACK_ROUTES if route.api in stack.apis]
    return RouteGroup(
        [
            *(Route(each.route, OpenAIEndpoint(each, surface), (each.http_method,)) for each in offered),
            *(Route(each.route, StackEndpoint(each, stack), (each.http_method,)) for each in others),
        ],
        prefix=PREFIX,
        errors=OPENAI_ERRORS,
        openapi=partial(openai_openapi, offered, others),
    )
