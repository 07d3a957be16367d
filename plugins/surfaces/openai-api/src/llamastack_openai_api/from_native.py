"""Native replies and streams -> OpenAI's."""

from __future__ import annotations

import base64
import time
import uuid
from array import array
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from sys import byteorder
from typing import Any

from llamastack.api.common import StopReason, ToolCall, text_of
from llamastack.api.inference import (
    ChatCompletionResponse,
    ChatCompletionResponseStreamChunk,
    CompletionResponse,
    CompletionResponseStreamChunk,
    EmbeddingsResponse,
    LogProbConfig,
    StopDetail,
    TokenLogProbs,
    TokenUsage,
    ToolCallDelta,
    ToolCallParseStatus,
)
from llamastack.api.models import Model
from llamastack.api.safety import RunShieldResponse, ViolationLevel
from llamastack.provider.errors import BackendError
from llamastack_adapters.openai_dialect import parse_arguments
from llamastack_server import event_of, json_of

DONE = b"data: [DONE]\n\n"


def _event(body: dict[str, Any]) -> bytes:
    return event_of(json_of(body))


def _head(kind: str, model: str) -> dict[str, Any]:
    prefix = {"chat.completion": "chatcmpl", "chat.completion.chunk": "chatcmpl", "text_completion": "cmpl"}[kind]
    return {"id": f"{prefix}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


def _finish_reason(reason: StopReason, detail: StopDetail | None, *, called: bool = False) -> str:
    if reason is StopReason.out_of_tokens:
        return "length"
    if detail is not None:
        return detail.value
    return "tool_calls" if called else "stop"


def _usage(several: Iterable[TokenUsage | None]) -> dict[str, int] | None:
    """Of several answers to one prompt, which counts once; None where one of them is not known."""
    known: list[TokenUsage] = []
    for usage in several:
        if usage is None:
            return None
        known.append(usage)
    if not known:
        return None
    prompt = known[0].prompt_tokens
    completion = sum(usage.completion_tokens for usage in known)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _sum(several: Iterable[dict[str, int] | None]) -> dict[str, int] | None:
    """Of several prompts."""
    total: dict[str, int] = {}
    for usage in several:
        if usage is None:
            return None
        for name, count in usage.items():
            total[name] = total.get(name, 0) + count
    return total or None


def _set(body: dict[str, Any], usage: dict[str, int] | None) -> dict[str, Any]:
    # A provider need not know; a made-up number would be believed.
    return body if usage is None else {**body, "usage": usage}


# ---- log probabilities -----------------------------------------------------------------------------------------------


def _chosen(entry: TokenLogProbs) -> tuple[str, float]:
    return next(iter(entry.logprobs_by_token.items()), ("", 0.0))


def _likeliest(entry: TokenLogProbs, most: int) -> list[tuple[str, float]]:
    return sorted(entry.logprobs_by_token.items(), key=lambda item: -item[1])[:most]


def _token(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def _chat_logprobs(
    entries: Sequence[TokenLogProbs] | None, wanted: LogProbConfig | None, *, refused: bool = False
) -> dict[str, Any] | None:
    if wanted is None or entries is None:
        return None
    told = [
        {**_token(*_chosen(entry)), "top_logprobs": [_token(*top) for top in _likeliest(entry, wanted.top_k)]}
        for entry in entries
    ]
    return {"content": None, "refusal": told} if refused else {"content": told, "refusal": None}


def _text_logprobs(
    entries: Sequence[TokenLogProbs] | None, wanted: LogProbConfig | None, offset: int = 0
) -> dict[str, Any] | None:
    if wanted is None or entries is None:
        return None
    offsets: list[int] = []
    for entry in entries:
        offsets.append(offset)
        offset += len(_chosen(entry)[0])
    return {
        "tokens": [_chosen(entry)[0] for entry in entries],
        "token_logprobs": [_chosen(entry)[1] for entry in entries],
        # The chosen one is there, however unlikely.
        "top_logprobs": [dict([_chosen(entry), *_likeliest(entry, wanted.top_k)]) for entry in entries]
        if wanted.top_k
        else None,
        "text_offset": offsets,
    }


# ---- chat ------------------------------------------------------------------------------------------------------------


def _tool_call(call: ToolCall) -> dict[str, Any]:
    return _function_call(call.call_id, str(call.tool_name), json_of(call.arguments).decode())


def _failed_call(delta: ToolCallDelta) -> dict[str, Any]:
    """A call whose arguments cannot be read. They are handed on as the model wrote them, as OpenAI does.

    Raises BackendError where they could be read, but not for certain as this call's.
    """
    if parse_arguments(str(delta.content)) is not None:
        raise BackendError("the backend's tool calls cannot be told apart: some arguments may belong to another call")
    return _function_call(delta.call_id, str(delta.tool_name or ""), str(delta.content))


def _function_call(call_id: str | None, name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id or f"call_{uuid.uuid4().hex}", "type": "function", "function": function}


def _is_cut(reason: StopReason, detail: StopDetail | None) -> bool:
    """Whether the reply ended early. A call that cannot be read then is left out: its finish_reason says why."""
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


def chat_completion(
    replies: Sequence[ChatCompletionResponse], model: str, logprobs: LogProbConfig | None, *, most_calls: int | None
) -> bytes:
    """A `chat.completion` with a choice for each reply.

    most_calls: how many tool calls each may have; None for any number.
    """
    choices = []
    for index, reply in enumerate(replies):
        message = _chat_message(reply, most_calls)
        called, refused = "tool_calls" in message, message["refusal"] is not None
        choices.append(
            {
                "index": index,
                "message": message,
                "logprobs": _chat_logprobs(reply.logprobs, logprobs, refused=refused),
                "finish_reason": _finish_reason(reply.completion_message.stop_reason, reply.stop_detail, called=called),
            }
        )
    body = {**_head("chat.completion", model), "choices": choices}
    return json_of(_set(body, _usage(reply.usage for reply in replies)))


@dataclass(slots=True)
class _Choice:
    """Of a stream: how far it has come."""

    index: int
    pieces: AsyncIterator[Any]
    begun: bool = False
    calls: int = 0
    failed: list[ToolCallDelta] = field(default_factory=list)
    offset: int = 0
    usage: TokenUsage | None = None
    ended: bool = False


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What a request says of its stream.

    model: as it is asked for. logprobs, usage: whether, and how, they are wanted. most_calls: of tools, in a choice.
    """

    model: str
    logprobs: LogProbConfig | None = None
    usage: bool = False
    most_calls: int | None = None
    prompts: int = field(default=1)
    """How many prompts there are; the choices are divided evenly among them."""


async def chat_events(
    streams: Sequence[AsyncIterator[ChatCompletionResponseStreamChunk]], way: StreamOptions
) -> AsyncIterator[bytes]:
    """`chat.completion.chunk` events of a choice for each stream, then `[DONE]`."""
    head = _head("chat.completion.chunk", way.model)

    def deltas(choice: _Choice, chunk: ChatCompletionResponseStreamChunk) -> list[dict[str, Any]]:
        return _chat_choices(choice, chunk, way)

    async for block in _events(streams, head, way, deltas):
        yield block


def _chat_choices(
    choice: _Choice, chunk: ChatCompletionResponseStreamChunk, way: StreamOptions
) -> list[dict[str, Any]]:
    event = chunk.event
    made: list[dict[str, Any]] = []

    def add(delta: dict[str, Any], finish_reason: str | None = None) -> None:
        made.append({"index": choice.index, "delta": delta, "logprobs": None, "finish_reason": finish_reason})

    if not choice.begun:
        choice.begun = True
        add({"role": "assistant", "content": "", "refusal": None})

    def add_call(call: dict[str, Any]) -> None:
        if way.most_calls is None or choice.calls < way.most_calls:
            add({"tool_calls": [{"index": choice.calls, **call}]})
            choice.calls += 1

    if isinstance(event.delta, ToolCallDelta):
        # A native stream has the name of a tool, and arguments that are sure to be some, when a call is complete.
        if event.delta.parse_status is ToolCallParseStatus.failure:
            choice.failed.append(event.delta)
        elif isinstance(event.delta.content, ToolCall):
            add_call(_tool_call(event.delta.content))
    elif event.delta or event.logprobs:
        refused = bool(event.refusal)
        add({"refusal" if refused else "content": event.delta})
        made[-1]["logprobs"] = _chat_logprobs(event.logprobs, way.logprobs, refused=refused)
    if event.stop_reason is not None:
        choice.ended = True
        choice.usage = event.usage
        if not _is_cut(event.stop_reason, event.stop_detail):
            for failed in choice.failed:
                add_call(_failed_call(failed))
        add({}, _finish_reason(event.stop_reason, event.stop_detail, called=choice.calls > 0))
    return made


# ---- text completion -------------------------------------------------------------------------------------------------


def completion(
    replies: Sequence[CompletionResponse], model: str, logprobs: LogProbConfig | None, *, prompts: int
) -> bytes:
    """A `text_completion` with a choice for each reply, those to the first of the prompts first."""
    choices = [
        {
            "index": index,
            "text": text_of(reply.completion_message.content),
            "logprobs": _text_logprobs(reply.logprobs, logprobs),
            "finish_reason": _finish_reason(reply.completion_message.stop_reason, reply.stop_detail),
        }
        for index, reply in enumerate(replies)
    ]
    body = {**_head("text_completion", model), "choices": choices}
    return json_of(_set(body, _of_prompts([reply.usage for reply in replies], prompts)))


def _of_prompts(usages: Sequence[TokenUsage | None], prompts: int) -> dict[str, int] | None:
    each = len(usages) // prompts
    return _sum(_usage(usages[start : start + each]) for start in range(0, len(usages), each))


async def completion_events(
    streams: Sequence[AsyncIterator[CompletionResponseStreamChunk]], way: StreamOptions
) -> AsyncIterator[bytes]:
    """`text_completion` events of a choice for each stream, then `[DONE]`."""
    head = _head("text_completion", way.model)

    def choices(choice: _Choice, chunk: CompletionResponseStreamChunk) -> list[dict[str, Any]]:
        reason = chunk.stop_reason
        made = {
            "index": choice.index,
            "text": chunk.delta,
            "logprobs": _text_logprobs(chunk.logprobs, way.logprobs, choice.offset),
            "finish_reason": None if reason is None else _finish_reason(reason, chunk.stop_detail),
        }
        choice.offset += len(chunk.delta)
        if reason is not None:
            choice.ended = True
            choice.usage = chunk.usage
        return [made]

    async for block in _events(streams, head, way, choices):
        yield block


async def _events(
    streams: Sequence[AsyncIterator[Any]],
    head: dict[str, Any],
    way: StreamOptions,
    choices_of: Callable[[_Choice, Any], list[dict[str, Any]]],
) -> AsyncIterator[bytes]:
    """The pieces of all streams in turns: each has its own pace, and all go on at their backends meanwhile."""
    choices = [_Choice(index, pieces) for index, pieces in enumerate(streams)]
    extra: dict[str, Any] = {"usage": None} if way.usage else {}
    going = list(choices)
    while going:
        for choice in tuple(going):
            try:
                piece = await anext(choice.pieces)
            except StopAsyncIteration:
                going.remove(choice)
                if not choice.ended:
                    raise BackendError("the provider ended a stream without a stop reason") from None
                continue
            for made in choices_of(choice, piece):
                yield _event({**head, "choices": [made], **extra})
    usage = _of_prompts([choice.usage for choice in choices], way.prompts) if way.usage else None
    if usage is not None:
        yield _event({**head, "choices": [], "usage": usage})
    yield DONE


# ---- embeddings, moderations, models ---------------------------------------------------------------------------------


def embeddings(reply: EmbeddingsResponse, model: str, encoding: str) -> bytes:
    """A list of `embedding`; as base64 of little-endian 32-bit floats, or as numbers."""
    data = [
        {"object": "embedding", "index": index, "embedding": _base64(vector) if encoding == "base64" else vector}
        for index, vector in enumerate(reply.embeddings)
    ]
    tokens = None if reply.usage is None else reply.usage.prompt_tokens
    usage = None if tokens is None else {"prompt_tokens": tokens, "total_tokens": tokens}
    return json_of(_set({"object": "list", "data": data, "model": model}, usage))


def _base64(vector: Sequence[float]) -> str:
    floats = array("f", vector)
    if byteorder == "big":
        floats.byteswap()
    return base64.b64encode(floats.tobytes()).decode()


def moderation(verdicts: Sequence[RunShieldResponse], shield: str) -> bytes:
    """The verdict of a shield on each input.

    The categories are the shield's own: `violation_type` of a violation's metadata where it has one, else the name of
    the shield. Scores are 1 or 0, as shields have none. The violation itself, with its words for the user and its
    metadata, stands beside them.
    """
    results = []
    for verdict in verdicts:
        violation = verdict.violation
        flagged = violation is not None and violation.violation_level is ViolationLevel.error
        category = shield if violation is None else str(violation.metadata.get("violation_type") or shield)
        result: dict[str, Any] = {
            "flagged": flagged,
            "categories": {category: flagged},
            "category_scores": {category: float(flagged)},
            "category_applied_input_types": {category: ["text"]},
        }
        if violation is not None:
            result["violation"] = violation.to_wire()
        results.append(result)
    return json_of({"id": f"modr-{uuid.uuid4().hex}", "model": shield, "results": results})


def model_entry(model: Model, name: str) -> dict[str, Any]:
    """A `model`, by a name of its own. It is not known when a model was made: `created` is 0.

    The fields after `owned_by` are those of newer llama-stack releases: `custom_metadata` as of 0.3, the others of 0.2.
    """
    kind = "embedding" if model.only_embeds else "llm"
    about = {"model_type": kind, "provider_id": model.provider_id, "provider_resource_id": model.identifier}
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": model.provider_id,
        "custom_metadata": {**model.metadata, **about},
        "identifier": name,
        "type": "model",
        "metadata": model.metadata,
        **about,
    }
