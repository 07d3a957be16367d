"""Inference providers whose streams say something else than their whole replies, or depend on the network."""

from __future__ import annotations

import html
import json
import unicodedata
from collections.abc import AsyncIterator
from typing import Any

from broken_inference import Base, broken

from llamastack.api import (
    ChatCompletionResponseStreamChunk,
    StopReason,
    TokenUsage,
    ToolCall,
    ToolCallDelta,
)
from llamastack.provider.streams import Stream, close, closing
from llamastack_adapters.openai_dialect import BackendReply, OpenAIForm


def _event(piece: Any) -> Any:
    return piece.event if isinstance(piece, ChatCompletionResponseStreamChunk) else piece


class _ChangesPieces(Base):
    """Changes a stream while it comes."""

    async def changed(self, pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        raise NotImplementedError
        yield

    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        return self._changing(reply) if kwargs.get("stream") else reply

    async def completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().completion(*args, **kwargs)
        return self._changing(reply) if kwargs.get("stream") else reply

    def _changing(self, reply: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async def pieces() -> AsyncIterator[Any]:
            async with closing(reply):
                async for piece in self.changed(reply):
                    yield piece

        return Stream(pieces(), lambda: close(reply))


@broken("wholes.chat")
class LosesEveryThirdPiece(_ChangesPieces):
    async def changed(self, pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        place = 0
        async for piece in pieces:
            place += isinstance(_event(piece).delta, str) and bool(_event(piece).delta)
            if not _event(piece).delta or place % 3:
                yield piece


@broken("wholes.chat")
class RepeatsAPiece(_ChangesPieces):
    async def changed(self, pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        place = 0
        async for piece in pieces:
            place += 1
            yield piece
            if place == 4:
                yield piece


@broken("wholes.chat")
class SwapsPieces(_ChangesPieces):
    async def changed(self, pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        kept = [piece async for piece in pieces]
        kept[2], kept[3] = kept[3], kept[2]
        for piece in kept:
            yield piece


@broken("wholes.chat")
class TrimsPieces(_ChangesPieces):
    async def changed(self, pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for piece in pieces:
            if isinstance(_event(piece).delta, str):
                _event(piece).delta = _event(piece).delta.strip()
            yield piece


@broken("wholes.chat")
class StreamsAlwaysEndTheirTurn(_ChangesPieces):
    async def changed(self, pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for piece in pieces:
            if _event(piece).stop_reason is not None:
                _event(piece).stop_reason = StopReason.end_of_turn
            yield piece


@broken("usage.streamed")
class StreamsHaveNoUsage(_ChangesPieces):
    async def changed(self, pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for piece in pieces:
            _event(piece).usage = None
            yield piece


@broken("usage.streamed")
class CountsPiecesAsTokens(_ChangesPieces):
    async def changed(self, pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        count = 0
        async for piece in pieces:
            count += 1
            if _event(piece).usage is not None:
                _event(piece).usage = TokenUsage(prompt_tokens=1, completion_tokens=count)
            yield piece


@broken("wholes.completion")
class LosesTheFirstOfACompletion(_ChangesPieces):
    async def changed(self, pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        first = True
        async for piece in pieces:
            if isinstance(piece, ChatCompletionResponseStreamChunk) or not first:
                yield piece
            first = False


@broken("wholes.tools")
class LosesTheArguments(_ChangesPieces):
    async def changed(self, pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for piece in pieces:
            delta = _event(piece).delta
            if isinstance(delta, ToolCallDelta) and isinstance(delta.content, ToolCall):
                delta.content.arguments = {}
            yield piece


@broken("wholes.tools")
class LosesRawArguments(_ChangesPieces):
    async def changed(self, pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        lost = False
        async for piece in pieces:
            delta = _event(piece).delta
            if isinstance(delta, ToolCallDelta) and delta.parse_status == "in_progress" and not lost:
                lost = True
                continue
            yield piece


@broken("wholes.form")
class LosesAChunk(Base):
    async def openai_chat(self, form: OpenAIForm) -> Any:
        chunks = await super().openai_chat(form)
        if not isinstance(chunks, AsyncIterator):
            return chunks

        async def fewer() -> AsyncIterator[Any]:
            place = 0
            async for chunk in chunks:
                place += 1
                if place != 3:
                    yield chunk

        return fewer()


class _ReadsBlocks(Base):
    """Reads the stream of its backend block by block."""

    async def send_chat(self, form: OpenAIForm) -> BackendReply:
        if not form.stream:
            return await super().send_chat(form)
        body = {"model": self.backend_name(form.model), **form.fields, "stream": True}
        body["stream_options"] = {"include_usage": True}
        blocks = await self.backend.forward_events(self.path_of("chat/completions"), json.dumps(body).encode())

        async def chunks() -> AsyncIterator[Any]:
            async for data in self.events_of(blocks):
                if data.startswith("{"):
                    yield json.loads(data)

        return Stream(chunks(), blocks.aclose)

    async def events_of(self, blocks: AsyncIterator[bytes]) -> AsyncIterator[str]:
        raise NotImplementedError
        yield ""


@broken("wholes.splits")
class DecodesEachBlock(_ReadsBlocks):
    async def events_of(self, blocks: AsyncIterator[bytes]) -> AsyncIterator[str]:
        rest = ""
        async for block in blocks:
            for at in range(0, len(block), 7):  # as the network would deliver it
                rest += block[at : at + 7].decode(errors="ignore")
                *events, rest = rest.split("\n\n")
                for event in events:
                    yield event.removeprefix("data: ")


@broken("wholes.splits")
class ReadsOneEventOfABlock(_ReadsBlocks):
    async def events_of(self, blocks: AsyncIterator[bytes]) -> AsyncIterator[str]:
        async for block in blocks:
            yield block.decode().split("\n\n")[0].removeprefix("data: ")


@broken("wholes.splits")
class SplitsAtLineSeparators(_ReadsBlocks):
    async def events_of(self, blocks: AsyncIterator[bytes]) -> AsyncIterator[str]:
        whole = b"".join([block async for block in blocks]).decode()
        for line in whole.splitlines():
            data = line.removeprefix("data: ")
            try:
                json.loads(data)
            except ValueError:
                continue
            yield data


class _ChangesText(Base):
    def text_of(self, text: str) -> str:
        raise NotImplementedError

    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        if not kwargs.get("stream"):
            reply.completion_message.content = self.text_of(reply.completion_message.content)
        return reply

    async def completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().completion(*args, **kwargs)
        if not kwargs.get("stream"):
            reply.completion_message.content = self.text_of(reply.completion_message.content)
        return reply


@broken("wholes.unchanged")
class CutsAtABlankLine(_ChangesText):
    def text_of(self, text: str) -> str:
        return text.partition("\n\n")[0]


@broken("wholes.unchanged")
class ComposesCharacters(_ChangesText):
    def text_of(self, text: str) -> str:
        return unicodedata.normalize("NFC", text)


@broken("wholes.unchanged")
class UnescapesMarkup(_ChangesText):
    def text_of(self, text: str) -> str:
        return html.unescape(text)


@broken("tools.several")
class ReturnsOneToolCall(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        if not kwargs.get("stream"):
            reply.completion_message.tool_calls = reply.completion_message.tool_calls[:1]
        return reply


@broken("tools.several")
class NumbersNoToolCalls(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        if not kwargs.get("stream"):
            for call in reply.completion_message.tool_calls:
                call.call_id = "call"
        return reply


@broken("received.logprobs")
class AsksForNoTopTokens(Base):
    async def send_chat(self, form: OpenAIForm) -> BackendReply:
        fields = {name: value for name, value in form.fields.items() if name != "top_logprobs"}
        return await super().send_chat(form._replace(fields=fields))


@broken("wholes.unchanged")
class StripsReplies(_ChangesText):
    def text_of(self, text: str) -> str:
        return text.strip()


@broken("wholes.unchanged")
class CutsLongReplies(_ChangesText):
    def text_of(self, text: str) -> str:
        return text[:4000]


@broken("wholes.pieces")
class DropsBlankPieces(_ChangesPieces):
    async def changed(self, pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for piece in pieces:
            delta = _event(piece).delta
            if not isinstance(delta, str) or not delta or delta.strip():
                yield piece


@broken("wholes.pieces")
class CutsLongPieces(_ChangesPieces):
    async def changed(self, pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for piece in pieces:
            if isinstance(_event(piece).delta, str):
                _event(piece).delta = _event(piece).delta[:4000]
            yield piece


@broken("tools.types")
class MakesTextsOfArguments(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        if not kwargs.get("stream"):
            for call in reply.completion_message.tool_calls:
                call.arguments = {name: str(value) for name, value in call.arguments.items()}
        return reply


@broken("tools.types")
class MakesNumbersOfStreamedArguments(_ChangesPieces):
    async def changed(self, pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for piece in pieces:
            delta = _event(piece).delta
            if isinstance(delta, ToolCallDelta) and isinstance(delta.content, ToolCall):
                arguments = delta.content.arguments
                delta.content.arguments = {
                    name: float(value) if isinstance(value, int) else value for name, value in arguments.items()
                }
            yield piece


@broken("logprobs.alternatives")
class StreamsNoLogprobs(_ChangesPieces):
    async def changed(self, pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for piece in pieces:
            _event(piece).logprobs = None
            yield piece


@broken("logprobs.alternatives")
class GivesTheChosenTokenAlone(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        if not kwargs.get("stream"):
            for place in reply.logprobs or ():
                place.logprobs_by_token = dict(list(place.logprobs_by_token.items())[:1])
        return reply
