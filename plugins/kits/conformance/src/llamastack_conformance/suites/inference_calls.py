"""Calls of an inference provider, from which the checks of its suite are made."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from llamastack.api.common import (
    CompletionMessage,
    ImageMedia,
    SamplingParams,
    ToolChoice,
    ToolDefinition,
    ToolParamDefinition,
    UserMessage,
)
from llamastack.api.inference import (
    ChatCompletionResponse,
    ChatCompletionResponseStreamChunk,
    CompletionResponse,
    EmbeddingsResponse,
    JsonSchemaResponseFormat,
    LogProbConfig,
)
from llamastack.api.models import Model
from llamastack.provider.streams import closing
from llamastack_conformance.checks import CheckFailure
from llamastack_conformance.running import Running
from llamastack_conformance.suites.provider import RoutedProviderConformance
from llamastack_conformance.suites.suite import Probe

BRIEF = SamplingParams(max_tokens=4)
PLAIN = SamplingParams(max_tokens=8)
SHORT = SamplingParams(max_tokens=12)
LONG = SamplingParams(max_tokens=24)
QUESTION = "What is the capital of France?"
COUNT = "Count from one to twenty, in words."
WEATHER = ToolDefinition(
    tool_name="weather",
    description="The weather in a city",
    parameters={"city": ToolParamDefinition(param_type="string", description="Name of the city")},
)
SUNNY = JsonSchemaResponseFormat(
    json_schema={
        "type": "object",
        "properties": {"sunny": {"type": "boolean"}},
        "required": ["sunny"],
        "additionalProperties": False,
    }
)
_MANY_TEXTS = 35
SUBJECTS = ("llama", "ship", "violin", "bank", "winter", "bridge", "coffee", "king", "river", "engine")
_VERBS = ("near", "owns", "before", "hides", "under", "sees", "like")
_KNOWN: WeakKeyDictionary[object, dict[str, Any]] = WeakKeyDictionary()
# A PNG of one red dot.
DOT = ImageMedia(
    image="data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)


def different_texts(count: int) -> list[str]:
    """Different texts: `llama near ship 0`."""
    return [f"{SUBJECTS[n % 10]} {_VERBS[n % 7]} {SUBJECTS[(n // 10) % 10]} {n}" for n in range(count)]


# A PNG of one blue dot.
OTHER_DOT = ImageMedia(
    image="data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNgYPgPAAEDAQAIicLsAAAAAElFTkSuQmCC"
)


class InferenceCalls(RoutedProviderConformance):
    """The calls of a suite of the API inference."""

    api: ClassVar[str] = "inference"

    async def _model(self, running: Running, wanted: str | None = None) -> str:
        name = wanted or running.subject.settings.chat_model or _first(running, lambda model: not model.only_embeds)
        return running.qualified(name or running.first_object())

    async def _embedder(self, running: Running) -> str:
        """The model to embed with: that of the settings, or the first that is listed with an `embedding_dimension`."""
        settings = running.subject.settings
        if settings.embedding_model or settings.chat_model:
            return await self._model(running, settings.embedding_model)
        name = _first(running, lambda model: model.only_embeds) or _first(running, _embeds)
        return await self._model(running, name)

    async def _chat(self, running: Running, content: Any = QUESTION, **more: Any) -> Any:
        given = {"messages": [UserMessage(content=content)], "sampling_params": SHORT, **more}
        model = given.pop("model", None) or await self._model(running)
        return await running.calls.chat_completion(model=model, **given)

    async def _complete(self, running: Running, content: Any = "One, two, three,", **more: Any) -> Any:
        given = {"content": content, "sampling_params": SHORT, **more}
        return await running.calls.completion(model=await self._model(running), **given)

    async def _embed(self, running: Running, contents: list[Any]) -> Any:
        model = await self._embedder(running)
        return await running.calls.embeddings(model=model, contents=contents)

    async def known(
        self, running: Running, make: Callable[..., Awaitable[Any]], *given: Any, again: bool = False, **more: Any
    ) -> Any:
        """What `make(running, *given, **more)` returns, read to its end; of a stream, the list of its pieces.

        Checks of a provider that make the same call share its result, so that a model computes it once. again: make the
        call, even if another check has made it.
        """
        calls = _KNOWN.setdefault(running.subject, {})
        name = f"{getattr(make, '__name__', make)} {given} {sorted(more.items())}"
        if again or name not in calls:
            calls[name] = await read(await make(running, *given, **more))
        return calls[name]

    async def call(self, running: Running, text: str = QUESTION) -> Any:
        for capability, ask in (("chat_completion", self._chat), ("completion", self._complete)):
            if running.subject.declares(capability):
                return await ask(running, text, sampling_params=BRIEF)
        return await self._embed(running, [text])

    async def stream(self, running: Running) -> AsyncIterator[Any]:
        subject = running.subject
        if subject.declares("streaming"):
            if subject.declares("chat_completion"):
                chat: AsyncIterator[Any] = await self._chat(running, COUNT, stream=True, sampling_params=LONG)
                return chat
            if subject.declares("completion"):
                pieces: AsyncIterator[Any] = await self._complete(running, stream=True, sampling_params=LONG)
                return pieces
        return await super().stream(running)

    def answers(self, text: str, result: Any) -> bool:
        if isinstance(result, EmbeddingsResponse):
            return len(result.embeddings) == 1
        return isinstance(result, ChatCompletionResponse | CompletionResponse)

    async def plain_calls(self, running: Running) -> list[tuple[str, Callable[[], Awaitable[Any]]]]:
        texts = different_texts(_MANY_TEXTS)
        calls = {
            "chat_completion": lambda: self._chat(running, sampling_params=BRIEF),
            "completion": lambda: self._complete(running, sampling_params=BRIEF),
            "embeddings": lambda: self._embed(running, texts),
        }
        return [(name, call) for name, call in calls.items() if running.subject.declares(name)]

    def answered(self, result: Any) -> bool:
        if isinstance(result, EmbeddingsResponse):
            return len(result.embeddings) == _MANY_TEXTS and all(any(vector) for vector in result.embeddings)
        return bool(text_of_reply(result).strip())

    async def probe(self, running: Running, capability: str) -> Probe:
        model = await self._model(running)
        chat = {"model": model, "messages": [UserMessage(content=QUESTION)], "sampling_params": SHORT}
        settings = running.subject.settings
        probes = {
            "chat_completion": Probe("chat_completion", chat),
            "completion": Probe("completion", {"model": model, "content": "One, two,", "sampling_params": SHORT}),
            "embeddings": Probe(
                "embeddings",
                {"model": await self._embedder(running), "contents": ["a llama"]},
            ),
            "streaming": Probe("chat_completion", {**chat, "stream": True}, lambda r: isinstance(r, AsyncIterator)),
            "logprobs": Probe("chat_completion", {**chat, "logprobs": LogProbConfig()}, lambda r: bool(r.logprobs)),
            "tools": Probe(
                "chat_completion",
                {**chat, "tools": [WEATHER], "tool_choice": ToolChoice.required},
                lambda r: bool(r.completion_message.tool_calls),
            ),
            "json_schema": Probe(
                "chat_completion",
                {**chat, "response_format": SUNNY},
                lambda r: is_sunny(r.completion_message.content),
            ),
            # A reply does not show whether the model saw the image, so a model that is declared to see images is
            # trusted.
            "images": Probe(
                "chat_completion",
                {**chat, "messages": [UserMessage(content=["What is this?", DOT])]},
                lambda _: settings.image_model is not None,
            ),
        }
        return probes[capability]


async def read(result: Any) -> Any:
    """A whole result as it is; the list of the pieces of a stream."""
    if not isinstance(result, AsyncIterator):
        return result
    async with closing(result):
        return [piece async for piece in result]


def _embeds(model: Model) -> bool:
    return "embedding_dimension" in model.metadata


def _first(running: Running, fits: Callable[[Model], bool]) -> str | None:
    """The name of the first listed model that fits."""
    listed = running.instance.served.items()
    return next((name for name, model in listed if isinstance(model, Model) and fits(model)), None)


def text_of_reply(reply: Any) -> str:
    return str(reply.completion_message.content)


def check_plain_message(message: CompletionMessage) -> None:
    if not isinstance(message.content, str) or not message.content.strip():
        raise CheckFailure(f"content {message.content!r}", wanted="text")
    if message.tool_calls:
        raise CheckFailure(f"tool calls, though there are no tools: {message.tool_calls}")


def text_of_piece(piece: Any) -> str:
    delta = piece.event.delta if isinstance(piece, ChatCompletionResponseStreamChunk) else piece.delta
    return delta if isinstance(delta, str) else ""


def text_of_pieces(pieces: list[Any]) -> str:
    return "".join(text_of_piece(piece) for piece in pieces)


def is_sunny(text: Any) -> bool:
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        return False
    return isinstance(found, dict) and list(found) == ["sunny"] and isinstance(found["sunny"], bool)
