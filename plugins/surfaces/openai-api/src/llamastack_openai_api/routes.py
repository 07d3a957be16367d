"""The routes of `/v1`, as data, and their endpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

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
from llamastack.provider.provider_call import ProviderCall, ProviderMethod
from llamastack.provider.routes import Route, RouteGroup, Scope
from llamastack.provider.streams import Stream, close
from llamastack.provider.validation import invalid_request
from llamastack.stack import Stack
from llamastack_adapters.openai_dialect import OpenAIForm, OpenAIRequest
from llamastack_openai_api import checked_requests, replies
from llamastack_openai_api.cooperative_work import in_turns
from llamastack_openai_api.errors import OPENAI_ERRORS, PREFIX
from llamastack_openai_api.native_calls import NATIVE, FormAnswer
from llamastack_openai_api.openapi import openai_openapi
from llamastack_openai_api.replies import Reply, StreamOptions
from llamastack_openai_api.reply_facts import announces_json, announces_mapping, tokens_of_json, tokens_of_mapping
from llamastack_openai_api.requests import (
    CHAT,
    COMPLETION,
    EMBEDDINGS,
    MODERATION,
    ChatCompletionRequest,
    CompletionRequest,
    TextPart,
)
from llamastack_openai_api.routes_beyond_openai import STACK_ROUTES, StackEndpoint
from llamastack_openai_api.sampling import another_seed
from llamastack_openai_api.schemas import ANSWERS, Schema, reference_to
from llamastack_server import Endpoint, json_object, json_of

MOST_ANSWERS = 2048
"""Most provider calls of one request: prompts times answers to each, or texts to moderate."""
_MOST_AT_ONCE = 128
_LARGE = 2**16  # bytes
_T = TypeVar("_T")
_A = TypeVar("_A")
Answer = bytes | AsyncIterator[bytes]


@dataclass(frozen=True)
class OpenAIRoute:
    """One route of the surface.

    path: below `/v1/`. api, method: the native method that serves it. request: the model of its body.
    answer: makes the answer. reference: the page that describes the format. prompt: the field that the model reads.
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
        """The schema of each event of a stream."""
        name = ANSWERS[self.path][1]
        return None if name is None else reference_to(name)

    @property
    def route(self) -> str:
        """The path in the server's form. Names of models may have slashes."""
        return PREFIX + self.path.replace("}", ":path}")


class Surface:
    """What the routes need of a running stack."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    def call(self, api: str, method: str) -> Dispatch:
        """A native method that takes valid arguments."""
        return self.stack.api(api).methods[method].dispatch

    async def forwarded(self, by: ProviderMethod, given: Mapping[str, Any], body: bytes) -> Answer | None:
        """The answer of a backend that speaks OpenAI's API; None if the request cannot be forwarded.

        given: the request. Only the model and `stream` are checked; the backend checks the rest.
        """
        model, stream = given.get("model"), given.get("stream", False)
        if not isinstance(model, str) or not model or not isinstance(stream, bool):
            return None  # if it does not fit, the validation reports it
        answer: Answer | None = await self.stack.routed_calls("inference").call(by, model, given, body, stream=stream)
        return answer

    async def answered(self, by: ProviderMethod, form: OpenAIForm, given: Mapping[str, Any], body: bytes) -> FormAnswer:
        """The provider's answer to a request in OpenAI's form, by its native method if it has no other."""
        calls = self.stack.routed_calls("inference")
        answer: FormAnswer | None = await calls.call(by, form.model, given, body, stream=form.stream)
        if answer is not None:
            return answer
        return await NATIVE[by.native](self.call("inference", by.native), form)


_Needs = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def _forward(route: str, native: str, needs: _Needs) -> ProviderMethod:
    """`forward_openai` for one route."""

    def request(call: ProviderCall) -> OpenAIRequest:
        fields = _with_values(call.request)
        named = str(fields.get("model"))
        return OpenAIRequest(route, call.identifier, call.body or b"", fields, call.stream, named=named)

    return ProviderMethod(
        "forward_openai", native, request, needs, takes="takes_openai", tokens=tokens_of_json, announces=announces_json
    )


def _with_values(given: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in given.items() if value is not None} if None in given.values() else given


FORWARD_CHAT = _forward("chat/completions", "chat_completion", checked_requests.requested_capabilities)
FORWARD_COMPLETION = _forward("completions", "completion", checked_requests.requested_completion_capabilities)
FORWARD_EMBEDDINGS = _forward("embeddings", "embeddings", lambda _: {})


class OpenAIEndpoint(Endpoint):
    """One route of the surface."""

    def __init__(self, route: OpenAIRoute, surface: Surface) -> None:
        super().__init__(OPENAI_ERRORS)
        self._route = route
        self._surface = surface

    async def respond(self, scope: Scope, body: bytes) -> Answer:
        if self._route.request is None:
            return await self._route.answer(self._surface, scope.get("path_params", {}).get("model"), body)
        return await self._route.answer(self._surface, _with_values(json_object(body or b"{}")), body)

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


def _take_form(native: str, argument: Callable[[ProviderCall], OpenAIForm], needs: _Needs) -> ProviderMethod:
    """The method of providers that takes OpenAI's form of the native method."""
    name = {"chat_completion": "openai_chat", "completion": "openai_completion"}[native]
    return ProviderMethod(name, native, argument, needs, tokens=tokens_of_mapping, announces=announces_mapping)


async def _chat(surface: Surface, given: Mapping[str, Any], body: bytes) -> Answer:
    forwarded = await surface.forwarded(FORWARD_CHAT, given, body)
    if forwarded is not None:
        return forwarded
    await _let_others(body)
    request = _read(CHAT, given)
    await _let_others(body)
    form = checked_requests.chat_form(request, await in_turns(checked_requests.messages_of(request.messages)))
    await _let_others(body)
    forms = [(number, another_seed(form, number)) for number in range(request.n or 1)]

    def call(numbered: tuple[int, OpenAIForm]) -> Awaitable[FormAnswer]:
        number, one = numbered

        def argument(call: ProviderCall) -> OpenAIForm:
            if call.body is body:
                return one if one.model == call.identifier else one._replace(model=call.identifier)
            again = checked_requests.chat_form(_read(CHAT, _with_values(call.request)))
            return another_seed(again, number)._replace(model=call.identifier, stream=one.stream)

        by = _take_form("chat_completion", argument, checked_requests.requested_capabilities)
        return surface.answered(by, one, given, body)

    answers = await _together(call, forms)
    if not form.stream:
        return replies.whole("chat.completion", cast("list[Reply]", answers), request.model)
    options = StreamOptions("chat.completion.chunk", request.model, _wants_usage(request))
    return _streams(cast("list[AsyncIterator[Reply]]", answers), options)


async def _completion(surface: Surface, given: Mapping[str, Any], body: bytes) -> Answer:
    forwarded = await surface.forwarded(FORWARD_COMPLETION, given, body)
    if forwarded is not None:
        return forwarded
    checked_requests.refuse_tokens(given.get("prompt"), "prompt")
    await _let_others(body)
    request = _read(COMPLETION, given)
    # Checked before the forms are made, because a body can hold more prompts than are allowed.
    _refuse_more_answers((len(request.prompt) if isinstance(request.prompt, list) else 1) * (request.n or 1), "prompt")
    await _let_others(body)
    prompts = checked_requests.completion_forms(request)
    numbers = [(place, number) for place in range(len(prompts)) for number in range(request.n or 1)]
    forms = [(place, number, another_seed(prompts[place], number)) for place, number in numbers]

    def call(numbered: tuple[int, int, OpenAIForm]) -> Awaitable[FormAnswer]:
        place, number, one = numbered

        def argument(call: ProviderCall) -> OpenAIForm:
            if call.body is body:
                return one if one.model == call.identifier else one._replace(model=call.identifier)
            again = checked_requests.completion_forms(_read(COMPLETION, _with_values(call.request)))
            form = again[min(place, len(again) - 1)]
            return another_seed(form, number)._replace(model=call.identifier, stream=one.stream)

        by = _take_form("completion", argument, checked_requests.requested_completion_capabilities)
        return surface.answered(by, one, given, body)

    answers = await _together(call, forms)
    if not request.stream:
        return replies.whole("text_completion", cast("list[Reply]", answers), request.model, len(prompts))
    options = StreamOptions("text_completion", request.model, _wants_usage(request), len(prompts))
    return _streams(cast("list[AsyncIterator[Reply]]", answers), options)


async def _embeddings(surface: Surface, given: Mapping[str, Any], body: bytes) -> Answer:
    forwarded = await surface.forwarded(FORWARD_EMBEDDINGS, given, body)
    if forwarded is not None:
        return forwarded
    checked_requests.refuse_tokens(given.get("input"), "input")
    request = _read(EMBEDDINGS, given)
    arguments = checked_requests.embeddings_arguments(request)
    if request.dimensions is not None:
        model = await surface.call("models", "get_model")({"identifier": request.model})
        _check_dimensions(request.dimensions, None if model is None else model.metadata.get("embedding_dimension"))
    reply = await surface.call("inference", "embeddings")({"model": request.model, **arguments})
    if request.dimensions is not None:
        _check_dimensions(request.dimensions, len(reply.embeddings[0]))
    return replies.embeddings(reply, request.model, request.encoding_format or "float")


def _check_dimensions(wanted: int, own: object) -> None:
    """Raises InvalidRequestError if the model is known to have another number of dimensions."""
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
        texts = ["\n".join(texts)]  # the parts belong to one input
    _refuse_more_answers(len(texts), "input")
    call = surface.call("safety", "run_shield")
    verdicts = await _together(
        call, [{"shield_type": shield, "messages": [UserMessage(content=text)]} for text in texts]
    )
    return replies.moderation(verdicts, shield)


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
            # The model that answers to the short name gets it.
            known = await surface.call("models", "get_model")({"identifier": model.identifier})
            plain = known is not None and known.provider_id == model.provider_id
            shown = model.identifier if plain else f"{model.provider_id}/{model.identifier}"
            data[shown] = replies.model_entry(model, shown)
    return json_of({"object": "list", "data": list(data.values())})


async def _model(surface: Surface, name: str, body: bytes) -> bytes:
    model = await surface.call("models", "get_model")({"identifier": name})
    if model is None:
        served = await surface.call("models", "list_models")({})
        raise ObjectNotFoundError("model", name, available=[one.identifier for one in served], param="model")
    return json_of(replies.model_entry(model, name))


def _wants_usage(request: ChatCompletionRequest | CompletionRequest) -> bool:
    return request.stream_options is not None and bool(request.stream_options.include_usage)


async def _together(call: Callable[[_A], Awaitable[_T]], several: Sequence[_A]) -> list[_T]:
    """The replies to several calls, many of them concurrent. Raises the first failure and cancels the others."""
    if len(several) == 1:
        return [await call(several[0])]
    made: dict[int, _T] = {}
    failures: list[Exception] = []
    waiting = iter(enumerate(several))

    async def work() -> None:
        for place, argument in waiting:
            try:
                made[place] = await call(argument)
            except Exception as error:
                failures.append(error)
                group.cancel_scope.cancel()
                return
            await checkpoint()  # a call may return without waiting, and other requests need a turn

    try:
        async with anyio.create_task_group() as group:
            for _ in range(min(len(several), _MOST_AT_ONCE)):
                group.start_soon(work)
    except BaseException:
        await _close_all(made.values())
        raise
    if failures:
        await _close_all(made.values())
        try:
            raise failures[0]
        finally:
            failures.clear()  # else the error and this frame would refer to each other
    return [made[place] for place in range(len(several))]


def _refuse_more_answers(number: int, param: str) -> None:
    """Raises InvalidRequestError if one request needs too many provider calls."""
    if number > MOST_ANSWERS:
        raise InvalidRequestError(f"asks for {number} answers; one request may have {MOST_ANSWERS}", param=param)


async def _let_others(body: bytes) -> None:
    """Lets other requests run between the steps of long work."""
    if len(body) > _LARGE:
        await checkpoint()


async def _close_all(several: Iterable[object]) -> None:
    """Close each stream, even if closing one fails or the client disconnects."""
    with anyio.CancelScope(shield=True):
        async with AsyncExitStack() as closing:
            for one in several:
                closing.push_async_callback(close, one)


def _streams(streams: Sequence[AsyncIterator[Reply]], options: StreamOptions) -> Stream[bytes]:
    return Stream(replies.events(streams, options), lambda: _close_all(streams))


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
