"""Native replies, and pieces of streams -> replies and chunks in OpenAI's form, as `OpenAIProtocolPrivate` has them."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from llamastack.api.common import StopReason, ToolCall, text_of
from llamastack.api.inference import (
    ChatCompletionResponse,
    ChatCompletionResponseEvent,
    CompletionResponse,
    CompletionResponseStreamChunk,
    StopDetail,
    TokenLogProbs,
    TokenUsage,
    ToolCallDelta,
    ToolCallParseStatus,
)
from llamastack.http.lone_surrogates import encode_json
from llamastack.provider.errors import BackendError
from llamastack.provider.streams import closing
from llamastack_adapters.openai_dialect.protocols import OpenAIForm
from llamastack_adapters.openai_dialect.streams import ChatPiece
from llamastack_adapters.openai_dialect.tool_calls import parse_arguments

Reply = dict[str, Any]


def _finish_reason(reason: StopReason, detail: StopDetail | None, *, called: bool = False) -> str:
    if reason is StopReason.out_of_tokens:
        return "length"
    if detail is not None:
        return detail.value
    return "tool_calls" if called else "stop"


def _usage(usage: TokenUsage | None) -> dict[str, int] | None:
    # A provider may not know the usage, and a made-up number would be believed.
    if usage is None:
        return None
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _most_calls(form: OpenAIForm) -> int | None:
    """How many tools a reply may call; None for any number."""
    return 1 if form.fields.get("parallel_tool_calls") is False else None


# ---- log probabilities -----------------------------------------------------------------------------------------------


def _chosen(entry: TokenLogProbs) -> tuple[str, float]:
    return next(iter(entry.logprobs_by_token.items()), ("", 0.0))


def _likeliest(entry: TokenLogProbs, most: int) -> list[tuple[str, float]]:
    return sorted(entry.logprobs_by_token.items(), key=lambda item: -item[1])[:most]


def _token(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def _chat_logprobs(
    entries: Sequence[TokenLogProbs] | None, form: OpenAIForm, *, refused: bool = False
) -> dict[str, Any] | None:
    if entries is None or "logprobs" not in form.fields:
        return None
    most = form.fields.get("top_logprobs", 0)
    joined = [
        {**_token(*_chosen(entry)), "top_logprobs": [_token(*top) for top in _likeliest(entry, most)]}
        for entry in entries
    ]
    return {"content": None, "refusal": joined} if refused else {"content": joined, "refusal": None}


def _text_logprobs(entries: Sequence[TokenLogProbs] | None, form: OpenAIForm, offset: int = 0) -> dict[str, Any] | None:
    if entries is None or "logprobs" not in form.fields:
        return None
    most = form.fields["logprobs"]
    offsets: list[int] = []
    for entry in entries:
        offsets.append(offset)
        offset += len(_chosen(entry)[0])
    return {
        "tokens": [_chosen(entry)[0] for entry in entries],
        "token_logprobs": [_chosen(entry)[1] for entry in entries],
        # The chosen token is listed, however unlikely it is.
        "top_logprobs": [dict([_chosen(entry), *_likeliest(entry, most)]) for entry in entries] if most else None,
        "text_offset": offsets,
    }


# ---- chat ------------------------------------------------------------------------------------------------------------


def _tool_call(call: ToolCall) -> dict[str, Any]:
    return _function_call(call.call_id, str(call.tool_name), encode_json(call.arguments, inf_nan_mode="null").decode())


def _failed_call(delta: ToolCallDelta) -> dict[str, Any]:
    """A call whose arguments cannot be parsed. They are passed on as the model wrote them, as OpenAI does.

    Raises BackendError if they can be parsed, but may belong to another call.
    """
    if parse_arguments(str(delta.content)) is not None:
        raise BackendError("the backend's tool calls cannot be told apart: some arguments may belong to another call")
    return _function_call(delta.call_id, str(delta.tool_name or ""), str(delta.content))


def _function_call(call_id: str | None, name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id or f"call_{uuid.uuid4().hex}", "type": "function", "function": function}


def _is_cut(reason: StopReason, detail: StopDetail | None) -> bool:
    """Whether the reply ended early. A call that cannot be parsed is then left out, as the finish_reason explains."""
    return reason is StopReason.out_of_tokens or detail is not None


def _chat_message(reply: ChatCompletionResponse, most_calls: int | None) -> dict[str, Any]:
    given = reply.completion_message
    calls = [_tool_call(call) for call in given.tool_calls]
    if not _is_cut(given.stop_reason, reply.stop_detail):
        calls += [_failed_call(delta) for delta in reply.failed_tool_calls or ()]
    calls = calls[:most_calls]
    text = text_of(given.content)
    if reply.refusal:
        text = text.removesuffix(reply.refusal)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if (calls or reply.refusal) and not text else text,
        "refusal": reply.refusal or None,
    }
    return {**message, "tool_calls": calls} if calls else message


def chat_reply(reply: ChatCompletionResponse, form: OpenAIForm) -> Reply:
    """A whole chat completion."""
    message = _chat_message(reply, _most_calls(form))
    called, refused = "tool_calls" in message, message["refusal"] is not None
    choice = {
        "message": message,
        "logprobs": _chat_logprobs(reply.logprobs, form, refused=refused),
        "finish_reason": _finish_reason(reply.completion_message.stop_reason, reply.stop_detail, called=called),
    }
    return {"choices": [choice], "usage": _usage(reply.usage)}


class _ChatWriter:
    """Makes the chunks of one streamed chat."""

    __slots__ = ("_begun", "_calls", "_failed", "_form", "_most_calls")

    def __init__(self, form: OpenAIForm) -> None:
        self._form = form
        self._most_calls = _most_calls(form)
        self._begun = False
        self._calls = 0
        self._failed: list[ToolCallDelta] = []

    def chunks(self, event: ChatPiece | ChatCompletionResponseEvent) -> list[Reply]:
        made: list[Reply] = []
        if not self._begun:
            self._begun = True
            made.append(_chunk({"role": "assistant", "content": "", "refusal": None}))
        if isinstance(event.delta, ToolCallDelta):
            # Only a complete call is sure to have the name of a tool and arguments.
            if event.delta.parse_status is ToolCallParseStatus.failure:
                self._failed.append(event.delta)
            elif isinstance(event.delta.content, ToolCall):
                made += self._call(_tool_call(event.delta.content))
        elif event.delta or event.logprobs:
            refused = bool(event.refusal)
            chunk = _chunk({"refusal" if refused else "content": event.delta})
            if event.logprobs:
                chunk["choices"][0]["logprobs"] = _chat_logprobs(event.logprobs, self._form, refused=refused)
            made.append(chunk)
        if event.stop_reason is not None:
            if not _is_cut(event.stop_reason, event.stop_detail):
                for failed in self._failed:
                    made += self._call(_failed_call(failed))
            reason = _finish_reason(event.stop_reason, event.stop_detail, called=self._calls > 0)
            made.append(_chunk({}, reason, _usage(event.usage)))
        return made

    def _call(self, call: dict[str, Any]) -> list[Reply]:
        if self._most_calls is not None and self._calls >= self._most_calls:
            return []
        self._calls += 1
        return [_chunk({"tool_calls": [{"index": self._calls - 1, **call}]})]


def _chunk(delta: dict[str, Any], finish_reason: str | None = None, usage: dict[str, int] | None = None) -> Reply:
    return {"choices": [{"delta": delta, "logprobs": None, "finish_reason": finish_reason}], "usage": usage}


async def chat_chunks(
    events: AsyncIterator[ChatPiece] | AsyncIterator[ChatCompletionResponseEvent], form: OpenAIForm
) -> AsyncIterator[Reply]:
    """The chunks of a streamed chat. Raises BackendError if it ends without a stop reason."""
    writer = _ChatWriter(form)
    ended = False
    async with closing(events):
        async for event in events:
            for chunk in writer.chunks(event):
                yield chunk
            ended = ended or event.stop_reason is not None
    if not ended:
        raise _no_stop_reason()


# ---- text completion -------------------------------------------------------------------------------------------------


def completion_reply(reply: CompletionResponse, form: OpenAIForm) -> Reply:
    """A whole text completion."""
    choice = {
        "text": text_of(reply.completion_message.content),
        "logprobs": _text_logprobs(reply.logprobs, form),
        "finish_reason": _finish_reason(reply.completion_message.stop_reason, reply.stop_detail),
    }
    return {"choices": [choice], "usage": _usage(reply.usage)}


async def completion_chunks(
    pieces: AsyncIterator[CompletionResponseStreamChunk], form: OpenAIForm
) -> AsyncIterator[Reply]:
    """The chunks of a streamed text completion. Raises BackendError if it ends without a stop reason."""
    offset = 0
    ended = False
    async with closing(pieces):
        async for piece in pieces:
            reason = piece.stop_reason
            ended = ended or reason is not None
            choice = {
                "text": piece.delta,
                "logprobs": _text_logprobs(piece.logprobs, form, offset),
                "finish_reason": None if reason is None else _finish_reason(reason, piece.stop_detail),
            }
            offset += len(piece.delta)
            yield {"choices": [choice], "usage": None if reason is None else _usage(piece.usage)}
    if not ended:
        raise _no_stop_reason()


def _no_stop_reason() -> BackendError:
    return BackendError("the provider ended a stream without a stop reason")
