"""Collects streams into whole replies, for backends that are always called with a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator

from llamastack.api.common import CompletionMessage, ToolCall
from llamastack.api.inference import (
    ChatCompletionResponse,
    CompletionResponse,
    CompletionResponseStreamChunk,
    TokenLogProbs,
    ToolCallDelta,
    ToolCallParseStatus,
)
from llamastack.provider.streams import closing
from llamastack_adapters.openai_dialect.streams import ChatPiece


async def collect_chat(pieces: AsyncIterator[ChatPiece]) -> ChatCompletionResponse:
    """The whole reply of a stream, whose last piece has the stop reason."""
    text: list[str] = []
    refusal: list[str] = []
    calls: list[ToolCall] = []
    failed: list[ToolCallDelta] = []
    logprobs: list[TokenLogProbs] = []
    last: ChatPiece | None = None
    async with closing(pieces):
        async for piece in pieces:
            last = piece
            logprobs += piece.logprobs or ()
            if isinstance(piece.delta, str):
                (refusal if piece.refusal else text).append(piece.delta)
            elif isinstance(piece.delta.content, ToolCall):
                calls.append(piece.delta.content)
            elif piece.delta.parse_status is ToolCallParseStatus.failure:
                failed.append(piece.delta)
    assert last is not None
    assert last.stop_reason is not None
    content = "".join((*text, *refusal))
    return ChatCompletionResponse(
        completion_message=CompletionMessage(content=content, stop_reason=last.stop_reason, tool_calls=calls),
        logprobs=logprobs or None,
        usage=last.usage,
        stop_detail=last.stop_detail,
        refusal="".join(refusal) or None,
        failed_tool_calls=failed or None,
    )


async def collect_completion(pieces: AsyncIterator[CompletionResponseStreamChunk]) -> CompletionResponse:
    """The whole reply of a stream, whose last piece has the stop reason."""
    text: list[str] = []
    logprobs: list[TokenLogProbs] = []
    last: CompletionResponseStreamChunk | None = None
    async with closing(pieces):
        async for piece in pieces:
            last = piece
            text.append(piece.delta)
            logprobs += piece.logprobs or ()
    assert last is not None
    assert last.stop_reason is not None
    message = CompletionMessage(content="".join(text), stop_reason=last.stop_reason)
    return CompletionResponse(
        completion_message=message, logprobs=logprobs or None, usage=last.usage, stop_detail=last.stop_detail
    )
