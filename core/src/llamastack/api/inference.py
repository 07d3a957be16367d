"""Inference: completion, chat completion and embeddings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from llamastack.api.base import WireModel
from llamastack.api.common import (
    CompletionMessage,
    InterleavedTextMedia,
    Message,
    SamplingParams,
    StopReason,
    ToolCall,
    ToolChoice,
    ToolDefinition,
    ToolPromptFormat,
)
from llamastack.api.webmethod import not_served, webmethod


class LogProbConfig(WireModel):
    """Ask for log probabilities: of the chosen token, and of the `top_k` likeliest at each place."""

    top_k: Annotated[int, Field(ge=0, le=100)] = 0


class TokenLogProbs(WireModel):
    """Natural-log probabilities at one place of the output, by token text; the chosen token comes first."""

    logprobs_by_token: dict[str, float]


class JsonSchemaResponseFormat(WireModel):
    """Constrain the output to a JSON document that fits a JSON schema (draft 2020-12)."""

    type: Literal["json_schema"] = "json_schema"
    json_schema: dict[str, Any]


ResponseFormat = JsonSchemaResponseFormat


class CompletionResponse(WireModel):
    completion_message: CompletionMessage
    logprobs: list[TokenLogProbs] | None = None


class CompletionResponseStreamChunk(WireModel):
    """A piece of a streamed completion; the last has the `stop_reason`."""

    delta: str
    stop_reason: StopReason | None = None
    logprobs: list[TokenLogProbs] | None = None


class ToolCallParseStatus(StrEnum):
    started = "started"
    in_progress = "in_progress"
    failure = "failure"
    success = "success"


class ToolCallDelta(WireModel):
    """A piece of a tool call: raw text while it is in progress, the whole `ToolCall` at success."""

    content: str | ToolCall
    parse_status: ToolCallParseStatus


class ChatCompletionResponse(WireModel):
    completion_message: CompletionMessage
    logprobs: list[TokenLogProbs] | None = None


class ChatCompletionResponseEventType(StrEnum):
    start = "start"
    progress = "progress"
    complete = "complete"


class ChatCompletionResponseEvent(WireModel):
    """One event of a streamed chat completion: start, progress..., complete (with the `stop_reason`)."""

    event_type: ChatCompletionResponseEventType
    delta: str | ToolCallDelta
    logprobs: list[TokenLogProbs] | None = None
    stop_reason: StopReason | None = None


class ChatCompletionResponseStreamChunk(WireModel):
    event: ChatCompletionResponseEvent


class EmbeddingsResponse(WireModel):
    embeddings: list[list[float]]
    """One vector per content, in the order of the request; all of the model's dimension."""


class Inference(Protocol):
    """Generate text and embed content."""

    @webmethod(
        "/inference/completion",
        routed_by="model",
        capability="completion",
        argument_capabilities={"stream": "streaming", "logprobs": "logprobs", "response_format": "json_schema"},
    )
    async def completion(
        self,
        model: str,
        content: InterleavedTextMedia,
        sampling_params: SamplingParams | None = None,
        stream: bool | None = None,
        logprobs: LogProbConfig | None = None,
        response_format: ResponseFormat | None = None,
    ) -> CompletionResponse | AsyncIterator[CompletionResponseStreamChunk]:
        """Continue a text. With `stream`, an iterator of pieces."""
        raise not_served()

    @webmethod(
        "/inference/chat_completion",
        routed_by="model",
        capability="chat_completion",
        argument_capabilities={
            "stream": "streaming",
            "logprobs": "logprobs",
            "tools": "tools",
            "response_format": "json_schema",
        },
    )
    async def chat_completion(
        self,
        model: str,
        messages: Annotated[list[Message], Field(min_length=1)],
        sampling_params: SamplingParams | None = None,
        tools: list[ToolDefinition] | None = None,
        tool_choice: ToolChoice | None = None,
        tool_prompt_format: ToolPromptFormat | None = None,
        stream: bool | None = None,
        logprobs: LogProbConfig | None = None,
        response_format: ResponseFormat | None = None,
    ) -> ChatCompletionResponse | AsyncIterator[ChatCompletionResponseStreamChunk]:
        """Answer the last message of a conversation. With `stream`, an iterator of events."""
        raise not_served()

    @webmethod("/inference/embeddings", routed_by="model", capability="embeddings")
    async def embeddings(
        self,
        model: str,
        contents: Annotated[list[InterleavedTextMedia], Field(min_length=1)],
    ) -> EmbeddingsResponse:
        """One vector per content."""
        raise not_served()
