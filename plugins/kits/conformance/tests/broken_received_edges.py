"""Inference providers that are each broken for calls that are unusual, but valid, or for streams that break off."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar

from broken_inference import Base, broken

from llamastack.api import ChatCompletionResponseEventType, StopReason, ToolCall, ToolCallDelta
from llamastack.api.inference import EmbeddingsResponse, ToolCallParseStatus
from llamastack.provider.errors import AuthenticationError, LlamaStackError, PermissionDeniedError


class _ChangesFields(Base):
    def changed(self, fields: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    async def send_chat(self, form: Any) -> Any:
        return await super().send_chat(form._replace(fields=self.changed(dict(form.fields))))


@broken("received.edges")
class TakesSeedZeroForNone(_ChangesFields):
    def changed(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in fields.items() if name != "seed" or value}


@broken("received.edges")
class TakesTemperatureZeroForNone(_ChangesFields):
    def changed(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in fields.items() if k != "temperature" or v or "top_p" not in fields}


@broken("received.edges")
class StripsStopTexts(_ChangesFields):
    def changed(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, **({"stop": [text.strip() for text in fields["stop"]]} if fields.get("stop") else {})}


@broken("received.edges")
class LimitsToFewTokens(_ChangesFields):
    def changed(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {"max_tokens": 16, **fields}


@broken("received.images")
class SendsTheFirstImage(_ChangesFields):
    def changed(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, "messages": [{**m, "content": _one_image(m["content"])} for m in fields["messages"]]}


def _one_image(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    images = [part for part in content if part["type"] == "image_url"]
    return [part for part in content if part not in images[1:]]


@broken("received.messages")
class SendsTheFirstInstructions(_ChangesFields):
    def changed(self, fields: dict[str, Any]) -> dict[str, Any]:
        first = next((m for m in fields["messages"] if m["role"] == "system"), None)
        return {**fields, "messages": [m for m in fields["messages"] if m["role"] != "system" or m is first]}


@broken("received.tools")
class EncodesArgumentsTwice(_ChangesFields):
    def changed(self, fields: dict[str, Any]) -> dict[str, Any]:
        messages = json.loads(json.dumps(fields["messages"]))
        for message in messages:
            for call in message.get("tool_calls") or ():
                call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
        return {**fields, "messages": messages}


@broken("received.completion")
class CompletesWithoutPenalties(Base):
    async def send_text(self, form: Any) -> Any:
        kept = {name: value for name, value in form.fields.items() if name != "presence_penalty"}
        return await super().send_text(form._replace(fields=kept))


@broken("received.completion")
class CompletesTheFirstPart(Base):
    async def completion(self, model: str, content: Any, *args: Any, **kwargs: Any) -> Any:
        first = content[0] if isinstance(content, list) else content
        return await super().completion(model, first, *args, **kwargs)


@broken("received.messages")
class SendsTheFirstPartOfInstructions(Base):
    async def chat_completion(self, model: str, messages: Any, *args: Any, **kwargs: Any) -> Any:
        kept = [
            m.model_copy(update={"content": m.content[0]}) if m.role == "system" and isinstance(m.content, list) else m
            for m in messages
        ]
        return await super().chat_completion(model, kept, *args, **kwargs)


class _CallsByTheNameOfTheConfig(Base):
    _plain = False

    def backend_name(self, identifier: str) -> str:
        return identifier if self._plain else super().backend_name(identifier)

    async def plain(self, call: Any) -> Any:
        self._plain = True
        try:
            return await call
        finally:
            self._plain = False


@broken("received.alias")
class ForwardsTheNameOfTheConfig(_CallsByTheNameOfTheConfig):
    async def forward_openai(self, request: Any) -> Any:
        return await self.plain(super().forward_openai(request))


@broken("received.alias")
class CompletesByTheNameOfTheConfig(_CallsByTheNameOfTheConfig):
    async def completion(self, *args: Any, **kwargs: Any) -> Any:
        return await self.plain(super().completion(*args, **kwargs))


@broken("received.alias")
class EmbedsByTheNameOfTheConfig(_CallsByTheNameOfTheConfig):
    async def embeddings(self, *args: Any, **kwargs: Any) -> Any:
        return await self.plain(super().embeddings(*args, **kwargs))


@broken("failure.left-stream")
class CompletionsCannotBeLeft(Base):
    async def completion(self, *args: Any, stream: Any = None, **kwargs: Any) -> Any:
        reply = await super().completion(*args, stream=stream, **kwargs)
        return _Uncloseable(reply) if stream else reply


@broken("received.parts")
class EmbedsTheFirstPart(Base):
    async def embeddings(self, model: str, contents: list[Any]) -> EmbeddingsResponse:
        return await super().embeddings(model, [c[0] if isinstance(c, list) else c for c in contents])


@broken("failure.clients-key")
class TriesItsOwnKey(Base):
    _refused = False

    def request_headers(self) -> Mapping[str, str]:
        return {"Authorization": "Bearer sk-operator-1234"} if self._refused else super().request_headers()

    async def send_chat(self, form: Any) -> Any:
        try:
            return await super().send_chat(form)
        except (AuthenticationError, PermissionDeniedError):
            self._refused = True
            try:
                return await super().send_chat(form)
            finally:
                self._refused = False


class _ChangesStreams(Base):
    def pieces_of(self, begin: Any) -> AsyncIterator[Any]:
        raise NotImplementedError

    async def chat_completion(self, *args: Any, stream: Any = None, **kwargs: Any) -> Any:
        begin = super().chat_completion
        if not stream:
            return await begin(*args, stream=stream, **kwargs)
        return self.pieces_of(lambda: begin(*args, stream=True, **kwargs))


@broken("failure.cut-each")
class CompletesCutStreams(_ChangesStreams):
    async def pieces_of(self, begin: Any) -> AsyncIterator[Any]:
        last = None
        try:
            async for piece in await begin():
                last = piece
                yield piece
        except LlamaStackError:
            if last is None:
                raise
            changes = {"event_type": ChatCompletionResponseEventType.complete, "delta": ""}
            event = last.event.model_copy(update={**changes, "stop_reason": StopReason.end_of_turn})
            yield last.model_copy(update={"event": event})


@broken("failure.before-pieces")
class BeginsBeforeItCalls(_ChangesStreams):
    async def pieces_of(self, begin: Any) -> AsyncIterator[Any]:
        from llamastack.api import ChatCompletionResponseEvent, ChatCompletionResponseStreamChunk

        start = ChatCompletionResponseEvent(event_type=ChatCompletionResponseEventType.start, delta="")
        yield ChatCompletionResponseStreamChunk(event=start)
        async for piece in await begin():
            if piece.event.event_type is not ChatCompletionResponseEventType.start:
                yield piece


@broken("failure.left-stream")
class CannotBeLeft(Base):
    async def chat_completion(self, *args: Any, stream: Any = None, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, stream=stream, **kwargs)
        return _Uncloseable(reply) if stream else reply


class _Uncloseable:
    _kept: ClassVar[list[Any]] = []

    def __init__(self, pieces: Any) -> None:
        self._pieces = pieces
        self._kept.append(pieces)

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        return await self._pieces.__anext__()


@broken("tools.bad-arguments")
class CallsWithNothing(Base):
    async def chat_completion(self, *args: Any, stream: Any = None, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, stream=stream, **kwargs)
        if stream or reply.completion_message.tool_calls:
            return reply
        call = ToolCall(call_id="call_1", tool_name="weather", arguments={})
        message = reply.completion_message.model_copy(update={"tool_calls": [call]})
        return reply.model_copy(update={"completion_message": message})


@broken("tools.several-streamed")
class StreamsTheFirstCall(_ChangesStreams):
    async def pieces_of(self, begin: Any) -> AsyncIterator[Any]:
        done = False
        async for piece in await begin():
            delta = piece.event.delta
            if isinstance(delta, ToolCallDelta) and done:
                continue
            done = done or (isinstance(delta, ToolCallDelta) and delta.parse_status is ToolCallParseStatus.success)
            yield piece
