"""Streams in the OpenAI dialect -> native streams, piece by piece."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, NamedTuple

from llamastack.api.common import StopReason
from llamastack.api.inference import (
    ChatCompletionResponseEvent,
    ChatCompletionResponseEventType,
    ChatCompletionResponseStreamChunk,
    CompletionResponseStreamChunk,
    LogProbConfig,
    StopDetail,
    TokenLogProbs,
    TokenUsage,
    ToolCallDelta,
)
from llamastack.provider.errors import BackendError, LlamaStackError
from llamastack.provider.streams import closing
from llamastack_adapters.error_bodies import error_in, error_in_choice, error_of_event
from llamastack_adapters.event_streams import EventStream, drain_briefly
from llamastack_adapters.non_streaming_replies import pieces_of_event
from llamastack_adapters.openai_dialect.call_assembler import ToolCallAssembler
from llamastack_adapters.openai_dialect.finish_reasons import END_OF_TURN, Finish
from llamastack_adapters.openai_dialect.replies import (
    MALFORMED,
    finish_of_choice,
    first_choice,
    logprobs_of,
    malformed,
    not_understood,
    refusal_of,
    said_in_choice,
    stop_reason,
    text_in_choice,
    text_of_content,
    understood,
    usage_of,
)
from llamastack_adapters.sse_blocks import DONE, DONE_EVENT, is_boundary, iter_events, without_empty
from llamastack_adapters.surrogate_pairs import SurrogateJoiner, decode_json


class ChatPiece(NamedTuple):
    """A piece of a streamed chat, with the fields of `ChatCompletionResponseEvent`."""

    event_type: ChatCompletionResponseEventType
    delta: str | ToolCallDelta = ""
    logprobs: list[TokenLogProbs] | None = None
    stop_reason: StopReason | None = None
    usage: TokenUsage | None = None
    stop_detail: StopDetail | None = None
    refusal: bool | None = None


def _native(piece: ChatPiece) -> ChatCompletionResponseStreamChunk:
    # Validated, which takes half as long as `model_construct`.
    given = {name: value for name, value in piece._asdict().items() if value is not None}
    event = ChatCompletionResponseEvent(**given)
    return ChatCompletionResponseStreamChunk(event=event)


def _cut_short(provider_id: str) -> BackendError:
    return BackendError(
        f"the backend of provider '{provider_id}' ended the stream before the reply was complete",
        provider_id=provider_id,
    )


def chat_stream(
    chunks: AsyncIterator[Mapping[str, Any]], provider_id: str, *, logprobs: LogProbConfig | None = None
) -> AsyncIterator[ChatCompletionResponseStreamChunk]:
    """start, progress..., complete from `chat.completion.chunk` objects, as native chunks; see `chat_pieces`."""
    return native_chat(chat_pieces(chunks, provider_id, logprobs=logprobs))


async def native_chat(pieces: AsyncIterator[ChatPiece]) -> AsyncIterator[ChatCompletionResponseStreamChunk]:
    """The same pieces as native chunks."""
    async with closing(pieces) as open_pieces:
        async for piece in open_pieces:
            yield _native(piece)


async def chat_pieces(
    chunks: AsyncIterator[Mapping[str, Any]], provider_id: str, *, logprobs: LogProbConfig | None = None
) -> AsyncIterator[ChatPiece]:
    """start, progress..., complete from `chat.completion.chunk` objects.

    chunks: an `EventStream` also tells whether a stream without a finish_reason is complete.
    logprobs: the request's; further log probabilities are left out.

    Raises BackendError if the stream ends before the reply is complete.
    """
    reader = _ChatReader(provider_id, logprobs)
    started = False
    async with closing(chunks) as open_chunks:
        async for chunk in open_chunks:
            choice = _choice(chunk, provider_id)
            reader.count(chunk)
            if choice is None:
                continue
            pieces = reader.read(choice)
            if not started:
                # Only once the reply has begun: until then a failure can still be a reply with its own status.
                pieces = iter(list(pieces))
                started = True
                yield ChatPiece(ChatCompletionResponseEventType.start)
            for piece in pieces:
                yield piece
    for piece in reader.end(done=_is_done(chunks)):
        yield piece


_PROGRESS = ChatCompletionResponseEventType.progress


class _ChatReader:
    """Reads the choices of one streamed chat completion."""

    def __init__(self, provider_id: str, logprobs: LogProbConfig | None) -> None:
        self.usage: TokenUsage | None = None
        self.finish: Finish | None = None
        self._provider_id = provider_id
        self._logprobs = logprobs
        self.has_said = False
        """Whether there is any text or tool call."""
        self._calls = ToolCallAssembler()
        self._text = SurrogateJoiner()
        self._refusal = SurrogateJoiner()

    def count(self, chunk: Mapping[str, Any]) -> None:
        """Keep the usage, if a chunk has it."""
        self.usage = usage_of(chunk) or self.usage

    def read(self, choice: Mapping[str, Any]) -> Iterator[ChatPiece]:
        """The pieces of a choice. Raises the error of a reply that the backend gave up, after its text."""
        try:
            delta = choice.get("delta") or self._whole(choice)
            given = logprobs_of(choice, self._logprobs)
            text = self._text.add(text_of_content(delta.get("content")))
            refusal = refusal_of(delta)
            tool_deltas = self._calls.add(delta)
            self.has_said = self.has_said or bool(text or refusal or tool_deltas)
        except MALFORMED as error:
            raise not_understood(self._provider_id, error) from error
        if refusal:
            refusal = self._refusal.add(refusal)
            if text:
                yield ChatPiece(_PROGRESS, text)
            if refusal or given:
                yield ChatPiece(_PROGRESS, refusal, logprobs=given, refusal=True)
        elif given:
            yield ChatPiece(_PROGRESS, text, logprobs=given)
        elif text:
            yield ChatPiece(_PROGRESS, text)
        for tool_delta in tool_deltas:
            yield ChatPiece(_PROGRESS, tool_delta)
        self.finish = finish_of_choice(choice, self._provider_id) or self.finish

    def _whole(self, choice: Mapping[str, Any]) -> Any:
        """The text of a choice without a delta, unless it repeats earlier text."""
        return {} if self.has_said else said_in_choice(choice) or {}

    def end(self, *, done: bool) -> Iterator[ChatPiece]:
        """The last pieces. Raises BackendError for an incomplete reply.

        done: whether the backend has sent its end marker.
        """
        finish = _finish(self.finish, self._provider_id, complete=done and self.has_said)
        calls = self._calls.finish(regular=finish.regular)
        if self.finish is None and calls.failures:
            raise _cut_short(self._provider_id)
        if rest := self._text.end():
            yield ChatPiece(_PROGRESS, rest)
        if rest := self._refusal.end():
            yield ChatPiece(_PROGRESS, rest, refusal=True)
        for tool_delta in calls.deltas:
            yield ChatPiece(_PROGRESS, tool_delta)
        yield ChatPiece(
            ChatCompletionResponseEventType.complete,
            stop_reason=stop_reason(finish, called=bool(self._calls)),
            usage=self.usage,
            stop_detail=finish.detail,
        )


def _is_done(chunks: AsyncIterator[Any]) -> bool:
    return isinstance(chunks, EventStream) and chunks.done


def _finish(found: Finish | None, provider_id: str, *, complete: bool) -> Finish:
    """Why a stream ended. complete: whether a stream without a finish reason is complete."""
    if found is None and not complete:
        raise _cut_short(provider_id)
    return found or END_OF_TURN


def _choice(chunk: Mapping[str, Any], provider_id: str) -> Mapping[str, Any] | None:
    """The chunk's choice; None for a chunk with only the usage. Raises an error in mid-stream."""
    if not chunk:
        return None  # sent to keep the connection open
    error = error_in(chunk)  # some backends wrap it in a list
    if error is not None:
        raise _broke_off(error, provider_id)
    if not isinstance(chunk, Mapping):
        raise malformed(provider_id, f"{str(chunk)!r} in a stream")
    return first_choice(chunk, provider_id) if chunk.get("choices") else None


def _broke_off(error: Any, provider_id: str) -> LlamaStackError:
    made = error_of_event(error, f"the backend of provider '{provider_id}'")
    return made.amend(provider_id=provider_id)


async def completion_stream(
    chunks: AsyncIterator[Mapping[str, Any]], provider_id: str, *, logprobs: LogProbConfig | None = None
) -> AsyncIterator[CompletionResponseStreamChunk]:
    """Pieces of a text completion; the last has the stop reason.

    chunks: an `EventStream` also tells whether a stream without a finish_reason is complete.
    Raises BackendError when the stream ends before the reply is complete.
    """
    finish: Finish | None = None
    usage: TokenUsage | None = None
    has_said = False
    joiner = SurrogateJoiner()
    async with closing(chunks) as open_chunks:
        async for chunk in open_chunks:
            choice = _choice(chunk, provider_id)
            usage = usage_of(chunk) or usage
            if choice is None:
                continue
            with understood(provider_id):
                piece = CompletionResponseStreamChunk(
                    delta=joiner.add(text_in_choice(choice) or ""), logprobs=logprobs_of(choice, logprobs)
                )
            if piece.delta or piece.logprobs:
                has_said = True
                yield piece
            finish = finish_of_choice(choice, provider_id) or finish
    finish = _finish(finish, provider_id, complete=has_said and _is_done(chunks))
    yield CompletionResponseStreamChunk(
        delta=joiner.end(), stop_reason=stop_reason(finish, called=False), usage=usage, stop_detail=finish.detail
    )


_ENDED = re.compile(rb"(?<![^\n])data:[ \t]*%b[ \t]*\r?\n\r?\n" % re.escape(DONE))
_USUAL_ENDS = (b"data: %b" % DONE, b"data:%b" % DONE)
_LINE_ENDS = (b"]\n\n", b"]\r\n\r\n", b"] \n\n", b"] \r\n\r\n")
_TAIL = len(DONE_EVENT) + 10
_FINISHED = re.compile(rb'"finish_reason"(?:\s|\ndata:)*:(?:\s|\ndata:)*"[^"]')
_ERROR_EVENT = re.compile(rb"(?<![^\n])event:[ \t]*error[ \t]*\r?\n")
_TAIL_BLOCKS = 8
_ONE_EVENT = (b"data: {", b"data:{")
_MOST_SAID = 4096  # bytes of an error that is a text
_HELD_S = 10.0  # less than any sensible client or proxy waits for a sign of life
_MOST_HELD = 4096  # bytes of comments; more than that says nothing more


async def forwarded(blocks: AsyncIterator[bytes], provider_id: str) -> AsyncIterator[bytes]:
    """The same blocks until `[DONE]`. Only the first block, and a block that may contain an error, are parsed.

    blocks: one or several whole events each.

    Events without data are left out. Comments before the first event wait for it briefly, because the backend may still
    refuse with a status of its own.

    Raises the error of an error event, and BackendError if the stream ends before its finish_reason.
    """
    last: deque[bytes] = deque(maxlen=_TAIL_BLOCKS)
    begun = False
    held = b""
    since = time.monotonic()
    async for block in blocks:
        # Most blocks are one event with data.
        if not block.startswith(_ONE_EVENT) or block.find(b"\n") < len(block) - 4:
            block = without_empty(block)
            if not begun and b"data:" not in block and time.monotonic() - since < _HELD_S:
                held += block if len(held) < _MOST_HELD else b""
                continue
        if not begun:
            begun = True
            block = held + block
            if next((data for _, data in iter_events(block) if data), b"") == DONE:
                raise _cut_short(provider_id)
            for sound in _until_error(block, provider_id, first=b"error" not in block):
                yield sound
            block = _in_pieces(block)
        elif b"error" in block:
            for sound in _until_error(block, provider_id):
                yield sound
        # Only at its end, because searching all of each block takes a twentieth of a stream's time.
        if block.endswith(_LINE_ENDS) and (ended := _ENDED.search(block, max(0, len(block) - _TAIL))) is not None:
            begin = ended.start() if is_boundary(block[: ended.start()]) else 0
            if begin:
                yield block[:begin]
            # Before the end marker: clients may disconnect at it, which would end the reading, too.
            await drain_briefly(blocks)
            word = ended.group()
            yield block[begin : ended.start()] + (word if word.rstrip(b"\r\n") in _USUAL_ENDS else DONE_EVENT)
            return
        if block:
            yield block
            last.append(block)
    tail = b"".join(last)
    if _ENDED.search(tail) is not None:
        return  # more followed it in its block
    if _FINISHED.search(tail) is None:
        raise _cut_short(provider_id)
    yield DONE_EVENT


def _in_pieces(block: bytes) -> bytes:
    """The same, but a first event that is a whole completion becomes a stream."""
    if b'"delta"' in block or b'"message"' not in block:
        return block
    end, data = next(iter_events(block))
    pieces = pieces_of_event(data)
    return block if pieces is None else b"".join((*pieces, block[end:]))


def _until_error(block: bytes, provider_id: str, *, first: bool = False) -> Iterator[bytes]:
    """The events before an error event, whose error is then raised; nothing without an error, and no comments alone.

    first: check only the first event with data.
    """
    sound = 0
    for end, data in iter_events(block):
        try:
            chunk = decode_json(data) if data else None
        except ValueError:
            shown = data[:_MOST_SAID].decode(errors="replace")
            chunk = {"error": shown} if _ERROR_EVENT.search(block, sound, end) else None
        error = error_in(chunk) or error_in_choice(chunk)
        if error is not None:
            if sound:
                yield block[:sound]
            raise _broke_off(error, provider_id)
        if data:
            sound = end
            if first:
                return
