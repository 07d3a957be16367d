"""Streams in the OpenAI dialect -> native streams, piece by piece as they come."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pydantic_core

from llamastack.api.common import StopReason, ToolCall
from llamastack.api.inference import (
    ChatCompletionResponseEvent,
    ChatCompletionResponseEventType,
    ChatCompletionResponseStreamChunk,
    CompletionResponseStreamChunk,
    LogProbConfig,
    TokenUsage,
    ToolCallDelta,
    ToolCallParseStatus,
)
from llamastack.provider.errors import BackendError, LlamaStackError
from llamastack.provider.openai_dialect.replies import (
    MALFORMED,
    first_choice,
    logprobs_of,
    malformed,
    not_understood,
    parse_arguments,
    stop_reason,
    text_of_content,
    understood,
    usage_of,
)
from llamastack.provider.refusals import error_of_event
from llamastack.provider.sse import data_of, ends_event
from llamastack.provider.streams import closing, run_out


@dataclass(slots=True)
class _OpenToolCall:
    call_id: str
    name: str
    arguments: str


def _event(
    event_type: ChatCompletionResponseEventType, delta: str | ToolCallDelta = "", **more: Any
) -> ChatCompletionResponseStreamChunk:
    # Validated, which takes half as long as `model_construct`.
    event = ChatCompletionResponseEvent(event_type=event_type, delta=delta, **more)
    return ChatCompletionResponseStreamChunk(event=event)


def _cut_short(provider_id: str) -> BackendError:
    return BackendError(
        f"the backend of provider '{provider_id}' ended the stream before the reply was complete",
        provider_id=provider_id,
    )


async def chat_stream(
    chunks: AsyncIterator[Mapping[str, Any]], provider_id: str, *, logprobs: LogProbConfig | None = None
) -> AsyncIterator[ChatCompletionResponseStreamChunk]:
    """start, progress..., complete out of `chat.completion.chunk` objects.

    logprobs: as the request has it; more than it asks for is left out.
    Raises BackendError when the stream ends before its finish_reason.
    """
    progress = ChatCompletionResponseEventType.progress
    calls: dict[int, _OpenToolCall] = {}
    reason: StopReason | None = None
    usage: TokenUsage | None = None
    started = False
    async with closing(chunks) as open_chunks:
        async for chunk in open_chunks:
            choice = _choice(chunk, provider_id)
            if not started:
                # Not before the backend has begun: until then a failure can still be answered with its own status.
                started = True
                yield _event(ChatCompletionResponseEventType.start)
            usage = usage_of(chunk) or usage
            if choice is None:
                continue
            try:
                delta = choice.get("delta") or {}
                given = logprobs_of(choice, logprobs)
                text = text_of_content(delta.get("content"))
                tool_deltas = [d for piece in delta.get("tool_calls") or () for d in _tool_pieces(calls, piece)]
                if choice.get("finish_reason") is not None:
                    reason = stop_reason(choice["finish_reason"], provider_id, called=bool(calls))
            except MALFORMED as error:
                raise not_understood(provider_id, error) from error
            if given:
                yield _event(progress, text, logprobs=given)
            elif text:
                yield _event(progress, text)
            for tool_delta in tool_deltas:
                yield _event(progress, tool_delta)
    if reason is None:
        raise _cut_short(provider_id)
    for call in calls.values():
        yield _event(progress, _finished(call))
    yield _event(ChatCompletionResponseEventType.complete, stop_reason=reason, usage=usage)


def _choice(chunk: Mapping[str, Any], provider_id: str) -> Mapping[str, Any] | None:
    """The chunk's choice; None when it has none (usage alone). An error in mid-stream is raised."""
    if not isinstance(chunk, Mapping):
        raise malformed(provider_id, f"{str(chunk)!r} in a stream")
    error = _error_in(chunk)
    if error is not None:
        raise _broke_off(error, provider_id)
    return first_choice(chunk, provider_id) if chunk.get("choices") else None


def _error_in(chunk: Mapping[str, Any]) -> Any:
    """The error that a chunk is, in whatever form; None where it is none."""
    if chunk.get("error") is not None:
        return chunk["error"]
    is_error = chunk.get("object") == "error" or isinstance(chunk.get("message"), str)
    return chunk if is_error and not chunk.get("choices") else None


def _broke_off(error: Any, provider_id: str) -> LlamaStackError:
    made = error_of_event(error, f"the backend of provider '{provider_id}'")
    made.provider_id = provider_id
    return made


def _tool_pieces(calls: dict[int, _OpenToolCall], piece: Mapping[str, Any]) -> Iterator[ToolCallDelta]:
    function = piece.get("function") or {}
    index = piece.get("index")
    if index is None:  # some backends give whole calls, without one
        index = len(calls) if piece.get("id") or function.get("name") else max(calls, default=0)
    call = calls.get(index)
    if call is not None and piece.get("id") not in (None, "", call.call_id):  # another one, of the same index
        index = len(calls)
        call = None
    if call is None:
        call = calls[index] = _OpenToolCall(str(piece.get("id") or ""), "", "")
        yield ToolCallDelta(content="", parse_status=ToolCallParseStatus.started)
    call.name = call.name or function.get("name") or ""
    fragment = function.get("arguments") or ""
    if fragment:
        call.arguments += fragment
        yield ToolCallDelta(content=fragment, parse_status=ToolCallParseStatus.in_progress)


def _finished(call: _OpenToolCall) -> ToolCallDelta:
    arguments = parse_arguments(call.arguments)
    if arguments is None or not call.name:
        return ToolCallDelta(content=call.arguments, parse_status=ToolCallParseStatus.failure)
    return ToolCallDelta(
        content=ToolCall(call_id=call.call_id, tool_name=call.name, arguments=arguments),
        parse_status=ToolCallParseStatus.success,
    )


async def completion_stream(
    chunks: AsyncIterator[Mapping[str, Any]], provider_id: str, *, logprobs: LogProbConfig | None = None
) -> AsyncIterator[CompletionResponseStreamChunk]:
    """Pieces of a text completion, the last with the stop reason.

    Raises BackendError when the stream ends before its finish_reason.
    """
    reason: StopReason | None = None
    usage: TokenUsage | None = None
    async with closing(chunks) as open_chunks:
        async for chunk in open_chunks:
            choice = _choice(chunk, provider_id)
            usage = usage_of(chunk) or usage
            if choice is None:
                continue
            with understood(provider_id):
                piece = CompletionResponseStreamChunk(
                    delta=choice.get("text") or "", logprobs=logprobs_of(choice, logprobs)
                )
                if choice.get("finish_reason") is not None:
                    reason = stop_reason(choice["finish_reason"], provider_id)
            if piece.delta or piece.logprobs:
                yield piece
    if reason is None:
        raise _cut_short(provider_id)
    yield CompletionResponseStreamChunk(delta="", stop_reason=reason, usage=usage)


_DONE = b"data: [DONE]\n\n"
_ENDED = re.compile(rb"(?<![^\n])data: ?\[DONE\]\r?\n\r?\n")
_LINE_ENDS = (b"]\n\n", b"]\r\n\r\n")
_TAIL = len(_DONE) + 2
_FINISHED = re.compile(rb'"finish_reason": ?"')
_REMEMBERED = 8


async def forwarded(blocks: AsyncIterator[bytes], provider_id: str) -> AsyncIterator[bytes]:
    """The same blocks until `[DONE]`, none of them read but for one that may have an error in it.

    blocks: of one or several whole events each.
    Raises what an error event says, and BackendError when the stream ends before its finish_reason.
    """
    last: deque[bytes] = deque(maxlen=_REMEMBERED)
    async for block in blocks:
        if b"error" in block:
            for sound in _until_error(block, provider_id):
                yield sound
        # Only at its end, as looking through all of each block takes a twentieth of a stream.
        if block.endswith(_LINE_ENDS) and (ended := _ENDED.search(block, max(0, len(block) - _TAIL))) is not None:
            begin = ended.start() if ends_event(block[: ended.start()]) else 0
            if begin:
                yield block[:begin]
            # Before the word for the end: clients may leave at it, which would end the reading, too.
            await run_out(blocks)
            yield block[begin : ended.end()]
            return
        yield block
        last.append(block)
    tail = b"".join(last)
    if _ENDED.search(tail) is not None:
        return  # there was more after it in its block
    if _FINISHED.search(tail) is None:
        raise _cut_short(provider_id)
    yield _DONE


def _until_error(block: bytes, provider_id: str) -> Iterator[bytes]:
    """The events before one that is an error, which is raised; nothing where none is."""
    before = 0
    for end, data in data_of(block):
        try:
            chunk = pydantic_core.from_json(data)
        except ValueError:
            chunk = None
        error = _error_in(chunk) if isinstance(chunk, dict) else None
        if error is not None:
            if before:
                yield block[:before]
            raise _broke_off(error, provider_id)
        before = end
