"""Inference providers that are each broken in one way. They adapt a backend of the OpenAI dialect."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from breaking import breaker

from llamastack.api import (
    ChatCompletionResponseEventType,
    CompletionMessage,
    StopReason,
    SystemMessage,
    ToolCall,
    ToolCallDelta,
    UserMessage,
)
from llamastack.provider import (
    Deps,
    InvalidRequestError,
    NotSupportedError,
    ProviderUnavailableError,
)
from llamastack.provider.streams import closing
from llamastack_adapters.openai_dialect import Dialect
from llamastack_provider_openai import OPENAI
from llamastack_provider_openai.config import OpenAIProviderConfig
from llamastack_provider_openai.inference import OpenAICompatibleInference

_LOGGER = logging.getLogger("broken")


def made_by(cls: type) -> Callable[..., Any]:
    async def make(config: OpenAIProviderConfig, deps: Deps) -> OpenAICompatibleInference:
        made: OpenAICompatibleInference = cls(
            config, deps, Dialect(deps.provider_id), url=config.url, key=config.api_key
        )
        return made

    make.__annotations__["return"] = cls
    return make


broken = breaker(
    "inference",
    OPENAI,
    made_by,
    config={"url": "{url}", "api_key": "sk-operator-1234"},
    settings={"image_model": "scripted"},
)
Base = OpenAICompatibleInference
IMPATIENT = {"time_limit_s": 4}


def answered(text: str = "", reason: StopReason = StopReason.end_of_turn) -> Any:
    from llamastack.api import ChatCompletionResponse

    return ChatCompletionResponse(completion_message=CompletionMessage(content=text, stop_reason=reason))


@broken("chat_completion.works")
class SaysNothing(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        return answered("")


@broken("chat_completion.works")
class AnswersWithADict(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        return {"completion_message": {"content": "Hello"}}


@broken("chat_completion.works")
class AnswersOutOfShape(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        return reply.model_copy(update={"completion_message": CompletionMessage.model_construct(content=7)})


@broken("chat_completion.conversation")
class RefusesSystemMessages(Base):
    async def chat_completion(self, model: str, messages: Any, *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(message, SystemMessage) for message in messages):
            raise InvalidRequestError("no system messages")
        return await super().chat_completion(model, messages, *args, **kwargs)


@broken("chat_completion.conversation")
class TakesTextAlone(Base):
    async def chat_completion(self, model: str, messages: Any, *args: Any, **kwargs: Any) -> Any:
        stripped = [UserMessage(content=m.content.strip()) for m in messages]
        return await super().chat_completion(model, stripped, *args, **kwargs)


@broken("chat_completion.max-tokens")
class AlwaysEndsItsTurn(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        reply.completion_message.stop_reason = StopReason.end_of_turn
        return reply


@broken("chat_completion.sampling")
class ChokesOnTopK(Base):
    async def chat_completion(self, *args: Any, sampling_params: Any = None, **kwargs: Any) -> Any:
        if sampling_params and sampling_params.top_k:
            raise ValueError("no such field")
        return await super().chat_completion(*args, sampling_params=sampling_params, **kwargs)


@broken("chat_completion.sampling")
class RefusesTheSeedWithoutItsName(Base):
    async def chat_completion(self, *args: Any, sampling_params: Any = None, **kwargs: Any) -> Any:
        if sampling_params and sampling_params.seed is not None:
            raise NotSupportedError("not that")
        return await super().chat_completion(*args, sampling_params=sampling_params, **kwargs)


@broken("chat_completion.stop")
class IgnoresStop(Base):
    async def chat_completion(self, *args: Any, sampling_params: Any = None, **kwargs: Any) -> Any:
        given = sampling_params and sampling_params.model_copy(update={"stop": None})
        return await super().chat_completion(*args, sampling_params=given, **kwargs)


class _Restreams(Base):
    def pieces_of(self, pieces: list[Any]) -> list[Any]:
        raise NotImplementedError

    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        return self._again(reply) if kwargs.get("stream") else reply

    async def completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().completion(*args, **kwargs)
        return self._again(reply) if kwargs.get("stream") else reply

    async def _again(self, reply: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async with closing(reply):
            pieces = [piece async for piece in reply]
        for piece in self.pieces_of(pieces):
            yield piece


@broken("streaming.order")
class NeverCompletes(_Restreams):
    def pieces_of(self, pieces: list[Any]) -> list[Any]:
        return pieces[:-1]


@broken("streaming.order")
class NeverStarts(_Restreams):
    def pieces_of(self, pieces: list[Any]) -> list[Any]:
        return pieces[1:]


@broken("streaming.order")
class StreamsNoText(_Restreams):
    def pieces_of(self, pieces: list[Any]) -> list[Any]:
        return [pieces[0], pieces[-1]]


@broken("streaming.completion")
class StopsAtEachPiece(_Restreams):
    def pieces_of(self, pieces: list[Any]) -> list[Any]:
        return [piece.model_copy(update={"stop_reason": StopReason.end_of_turn}) for piece in pieces]


@broken("streaming.as-it-comes")
class CollectsBeforeItStreams(_Restreams):
    def pieces_of(self, pieces: list[Any]) -> list[Any]:
        return pieces


@broken("completion.works")
class ContinuesNothing(Base):
    async def completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().completion(*args, **kwargs)
        reply.completion_message.content = " "
        return reply


@broken("embeddings.works")
class EmbedsInReverse(Base):
    async def embeddings(self, model: str, contents: Any) -> Any:
        reply = await super().embeddings(model, contents)
        reply.embeddings = [reply.embeddings[i] for i in (1, 0, 2)]
        return reply


@broken("embeddings.works")
class EmbedsOne(Base):
    async def embeddings(self, model: str, contents: Any) -> Any:
        return await super().embeddings(model, contents[:1])


@broken("embeddings.works")
class EmbedsInManyDimensions(Base):
    async def embeddings(self, model: str, contents: Any) -> Any:
        reply = await super().embeddings(model, contents)
        reply.embeddings[1] = reply.embeddings[1][:5]
        return reply


@broken("logprobs.works")
class HasNoLogprobs(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        reply.logprobs = None
        return reply


@broken("logprobs.works")
class GivesProbabilities(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        for place in reply.logprobs or ():
            place.logprobs_by_token = {token: -value for token, value in place.logprobs_by_token.items()}
        return reply


@broken("json_schema.works")
class TalksAroundTheJson(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        if not kwargs.get("stream"):
            reply.completion_message.content = f"Here: {reply.completion_message.content}"
        return reply


@broken("tools.works")
class CallsNoTool(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        return answered("I would rather talk.")


@broken("tools.works")
class CallsWithTextAsArguments(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        reply.completion_message.tool_calls = [
            ToolCall.model_construct(call_id="c", tool_name="weather", arguments='{"city": "Paris"}')
        ]
        return reply


@broken("tools.streamed")
class StreamsNoToolCall(_Restreams):
    def pieces_of(self, pieces: list[Any]) -> list[Any]:
        kinds = ChatCompletionResponseEventType
        return [p for p in pieces if p.event.event_type is not kinds.progress or isinstance(p.event.delta, str)]


@broken("tools.streamed")
class NeverSucceeds(_Restreams):
    def pieces_of(self, pieces: list[Any]) -> list[Any]:
        return [
            p for p in pieces if not isinstance(p.event.delta, ToolCallDelta) or p.event.delta.parse_status != "success"
        ]


@broken("images.works")
class SeesNothing(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        raise ProviderUnavailableError("no eyes")


for _name in ("chat_completion", "completion", "embeddings", "images", "json_schema", "logprobs", "streaming", "tools"):

    @broken(f"{_name}.refused", capabilities={_name: "unsupported"})
    class Hides(Base): ...
