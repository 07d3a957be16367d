"""Chunks of llama.cpp made into what was asked for, and native streams collected into whole replies."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

from llamastack.api.common import CompletionMessage, StopReason, ToolCall
from llamastack.api.inference import (
    ChatCompletionResponse,
    ChatCompletionResponseStreamChunk,
    CompletionResponse,
    CompletionResponseStreamChunk,
    TokenLogProbs,
    TokenUsage,
    ToolCallParseStatus,
)
from llamastack.provider import BackendError
from llamastack_provider_llama_cpp.engine import Chunk


def forced_call(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a chat request that can only be answered by a call of one of its tools.

    llama.cpp's own `tool_choice: required` lets the model talk instead. Here the reply is held to the JSON schema of a
    call, `{"name": ..., "arguments": {...}}`; `calls_from_text` reads it. Stop texts are for text: a call has none.
    """
    functions = [tool["function"] for tool in body["tools"]]
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": function["name"]}, "arguments": function["parameters"]},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for function in functions
    ]
    schema = {"name": "call", "strict": True, "schema": {"anyOf": calls}}
    response_format = {"type": "json_schema", "json_schema": schema}
    return {**body, "tool_choice": "none", "stop": [], "response_format": response_format}


async def calls_from_text(chunks: AsyncIterator[Chunk], provider_id: str) -> AsyncIterator[Chunk]:
    """The chunks of a `forced_call` with the tool call where such calls belong: in the last one's delta."""
    text = ""
    async for chunk in chunks:
        if not chunk["choices"]:  # the usage
            yield chunk
            continue
        choice = chunk["choices"][0]
        text += choice["delta"].pop("content", None) or ""
        if choice["finish_reason"] is not None:
            function = {"name": "", "arguments": text}
            if choice["finish_reason"] == "stop":
                call = _json_of(text, provider_id)
                function = {"name": call["name"], "arguments": json.dumps(call["arguments"])}
                choice["finish_reason"] = "tool_calls"
            choice["delta"]["tool_calls"] = [{"index": 0, "id": f"call_{uuid.uuid4().hex}", "function": function}]
        yield chunk


async def collect_chat(
    events: AsyncIterator[ChatCompletionResponseStreamChunk], provider_id: str
) -> ChatCompletionResponse:
    """The whole reply of a stream. A tool call that ran out of tokens is left out: `stop_reason` says so.

    Raises BackendError for any other tool call that cannot be read.
    """
    text: list[str] = []
    calls: list[ToolCall] = []
    logprobs: list[TokenLogProbs] = []
    broken: str | None = None
    reason: StopReason | None = None
    usage: TokenUsage | None = None
    async for chunk in events:
        event = chunk.event
        usage = event.usage
        logprobs += event.logprobs or ()
        reason = event.stop_reason or reason
        if isinstance(event.delta, str):
            text.append(event.delta)
        elif isinstance(event.delta.content, ToolCall):
            calls.append(event.delta.content)
        elif event.delta.parse_status is ToolCallParseStatus.failure:
            broken = event.delta.content
    assert reason is not None
    if broken is not None and reason is not StopReason.out_of_tokens:
        raise BackendError(f"llama.cpp: a tool call that cannot be read: {broken[:300]}", provider_id=provider_id)
    message = CompletionMessage(content="".join(text), stop_reason=reason, tool_calls=calls)
    return ChatCompletionResponse(completion_message=message, logprobs=logprobs or None, usage=usage)


async def collect_completion(chunks: AsyncIterator[CompletionResponseStreamChunk]) -> CompletionResponse:
    """The whole reply of a stream."""
    text: list[str] = []
    logprobs: list[TokenLogProbs] = []
    reason: StopReason | None = None
    usage: TokenUsage | None = None
    async for chunk in chunks:
        usage = chunk.usage
        text.append(chunk.delta)
        logprobs += chunk.logprobs or ()
        reason = chunk.stop_reason or reason
    assert reason is not None
    message = CompletionMessage(content="".join(text), stop_reason=reason)
    return CompletionResponse(completion_message=message, logprobs=logprobs or None, usage=usage)


def _json_of(text: str, provider_id: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BackendError(
            f"llama.cpp did not hold the model to the JSON schema: {text[:300]}", provider_id=provider_id
        ) from error
