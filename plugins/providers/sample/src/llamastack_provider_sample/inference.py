"""Inference by echo."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from llamastack.api.common import CompletionMessage, SamplingParams, StopReason, text_of
from llamastack.api.inference import (
    ChatCompletionResponse,
    ChatCompletionResponseEvent,
    ChatCompletionResponseEventType,
    ChatCompletionResponseStreamChunk,
    CompletionResponse,
    CompletionResponseStreamChunk,
)
from llamastack.api.models import Model
from llamastack.provider import Deps, ModelsProtocolPrivate, UnsupportedModelError
from llamastack_adapters.chat_request import (
    ChatInference,
    ChatReply,
    ChatRequest,
    CompletionInference,
    CompletionReply,
    CompletionRequest,
)
from llamastack_provider_sample.config import SampleInferenceConfig


class SampleInference(ChatInference, CompletionInference, ModelsProtocolPrivate):
    """A "token" is a word here: `max_tokens` counts words."""

    def __init__(self, config: SampleInferenceConfig) -> None:
        self._config = config

    async def list_models(self) -> list[Model]:
        return [Model(identifier=name) for name in self._config.models]

    async def register_model(self, model: Model) -> None:
        if model.identifier not in self._config.models:
            raise UnsupportedModelError(model.identifier, available=self._config.models)

    async def complete(self, request: CompletionRequest) -> CompletionReply:
        text, reason = self._reply(text_of(request.content), request.sampling)
        if request.stream:
            return self._completion_pieces(text, reason)
        return CompletionResponse(completion_message=CompletionMessage(content=text, stop_reason=reason))

    async def chat(self, request: ChatRequest) -> ChatReply:
        text, reason = self._reply(text_of(request.messages[-1].content), request.sampling)
        if request.stream:
            return self._chat_events(text, reason)
        return ChatCompletionResponse(completion_message=CompletionMessage(content=text, stop_reason=reason))

    def _reply(self, text: str, params: SamplingParams) -> tuple[str, StopReason]:
        text = self._config.prefix + text
        for stop in filter(None, params.stop or ()):
            text = text.partition(stop)[0]
        if params.max_tokens and text.count(" ") >= params.max_tokens:
            rest = text.split(" ", params.max_tokens)[-1]
            return text[: len(text) - len(rest)], StopReason.out_of_tokens
        return text, StopReason.end_of_turn

    async def _completion_pieces(self, text: str, reason: StopReason) -> AsyncIterator[CompletionResponseStreamChunk]:
        for word in _words(text):
            yield CompletionResponseStreamChunk(delta=word)
        yield CompletionResponseStreamChunk(delta="", stop_reason=reason)

    async def _chat_events(self, text: str, reason: StopReason) -> AsyncIterator[ChatCompletionResponseStreamChunk]:
        kinds = ChatCompletionResponseEventType
        yield _event(kinds.start, "")
        for word in _words(text):
            yield _event(kinds.progress, word)
        yield _event(kinds.complete, "", reason)


def _words(text: str) -> Iterator[str]:
    """The words, each with the space after it, made on demand: a text may have millions."""
    at = 0
    while (end := text.find(" ", at)) >= 0:
        yield text[at : end + 1]
        at = end + 1
    yield text[at:]


def _event(
    kind: ChatCompletionResponseEventType, delta: str, reason: StopReason | None = None
) -> ChatCompletionResponseStreamChunk:
    return ChatCompletionResponseStreamChunk(
        event=ChatCompletionResponseEvent(event_type=kind, delta=delta, stop_reason=reason)
    )


async def get_adapter_impl(config: SampleInferenceConfig, deps: Deps) -> SampleInference:
    return SampleInference(config)
