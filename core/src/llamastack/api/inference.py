"""Inference: completion, chat completion and embeddings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Annotated, Literal, Protocol

from pydantic import AfterValidator, Field

from llamastack.api.base import OMIT_IF_NONE, JsonObject, WireModel
from llamastack.api.common import (
    CompletionMessage,
    InterleavedTextMedia,
    Message,
    SamplingParams,
    StopReason,
    ToolCall,
    ToolChoice,
    ToolDefinition,
    ToolName,
    ToolPromptFormat,
)
from llamastack.api.webmethod import not_served, webmethod


class LogProbConfig(WireModel):
    """Ask for log probabilities: of the chosen token, and of the `top_k` likeliest at each place."""

    top_k: Annotated[int, Field(ge=0, le=100)] = 0
    """How many of the likeliest tokens to return in addition to the chosen one."""


class TokenLogProbs(WireModel):
    """Natural-log probabilities at one place of the output, by token text; the chosen token comes first."""

    logprobs_by_token: dict[str, float]
    """The text of a token to the natural logarithm of its probability."""


class TokenUsage(WireModel):
    """How many tokens a call took, as the backend counts them."""

    prompt_tokens: Annotated[int, Field(ge=0)]
    """Tokens of what the model was given, those of its template too."""
    completion_tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens that the model made; an embedding makes none."""


_OF_THE_WRAPPER = frozenset({"name", "schema", "strict", "description"})


def _unwrapped(given: JsonObject) -> JsonObject:
    """The schema inside OpenAI's `{"name", "schema", "strict"?, "description"?}`, else what was given.

    None of these but `description` is a word of JSON Schema: as a schema the wrapper would allow everything.
    """
    if not given or given.keys() == {"description"} or not given.keys() <= _OF_THE_WRAPPER:
        return given
    schema = given.get("schema")
    if not isinstance(schema, dict):
        raise ValueError("it holds no JSON schema: neither is it one, nor has it one in 'schema'")  # noqa: TRY004 - shown to clients
    return schema


class JsonSchemaResponseFormat(WireModel):
    """Constrain the output to a JSON document that fits a JSON schema (draft 2020-12)."""

    type: Literal["json_schema"] = "json_schema"
    json_schema: Annotated[JsonObject, AfterValidator(_unwrapped)]
    """The schema itself, or as OpenAI's clients wrap it: `{"name": ..., "schema": {...}}`."""


ResponseFormat = JsonSchemaResponseFormat
"""The form that a reply must have."""


class StopDetail(StrEnum):
    """What a `stop_reason` does not say of the end of a reply."""

    content_filter = "content_filter"
    """The backend's filter of contents ended or took out the reply."""


class _Reply(WireModel):
    completion_message: CompletionMessage
    """What the model said."""
    logprobs: list[TokenLogProbs] | None = None
    """One entry per token of the reply, where they were asked for."""
    usage: Annotated[TokenUsage | None, OMIT_IF_NONE] = None
    """The tokens that it took, if the provider knows."""
    stop_detail: Annotated[StopDetail | None, OMIT_IF_NONE] = None
    """More about the end of the reply, if the `stop_reason` does not say all."""


class CompletionResponse(_Reply):
    """What follows a text, without the text that was given."""


class _StreamedPiece(WireModel):
    stop_reason: StopReason | None = None
    """Why the reply ended; in the last piece only."""
    logprobs: list[TokenLogProbs] | None = None
    """Of the tokens in `delta`, where they were asked for."""
    usage: Annotated[TokenUsage | None, OMIT_IF_NONE] = None
    """The tokens that the whole reply took, if the provider knows; in the last piece only."""
    stop_detail: Annotated[StopDetail | None, OMIT_IF_NONE] = None
    """More about the end of the reply, if the `stop_reason` does not say all; in the last piece only."""


class CompletionResponseStreamChunk(_StreamedPiece):
    """A piece of a streamed completion; the last has the `stop_reason`."""

    delta: str
    """More of the text."""


class ToolCallParseStatus(StrEnum):
    """How far a tool call in a stream has come."""

    started = "started"
    in_progress = "in_progress"
    failure = "failure"
    success = "success"


class ToolCallDelta(WireModel):
    """A piece of a tool call: raw text while it is in progress, the whole `ToolCall` at success."""

    content: str | ToolCall
    """At failure the text that cannot be read."""
    parse_status: ToolCallParseStatus
    """How far it has come."""
    call_id: Annotated[str | None, OMIT_IF_NONE] = None
    """At failure: the id of the call."""
    tool_name: Annotated[ToolName | None, Field(union_mode="left_to_right"), OMIT_IF_NONE] = None
    """At failure: the tool that is called, where it is known."""


class ChatCompletionResponse(_Reply):
    """The answer to a conversation."""

    refusal: Annotated[str | None, OMIT_IF_NONE] = None
    """Where the model refuses to answer: its words for that, with which the text of the answer ends."""
    failed_tool_calls: Annotated[list[ToolCallDelta] | None, OMIT_IF_NONE] = None
    """Tool calls whose arguments cannot be read, each as a stream has it, with the status `failure`."""


class ChatCompletionResponseEventType(StrEnum):
    """Where in a stream an event stands."""

    start = "start"
    progress = "progress"
    complete = "complete"


class ChatCompletionResponseEvent(_StreamedPiece):
    """One event of a streamed chat completion: start, progress..., complete (with the `stop_reason`)."""

    event_type: ChatCompletionResponseEventType
    """Where in the stream it stands."""
    delta: str | ToolCallDelta
    """More of the text, or of a tool call; empty at start and complete."""
    refusal: Annotated[bool | None, OMIT_IF_NONE] = None
    """True if `delta` is text by which the model refuses to answer."""


class ChatCompletionResponseStreamChunk(WireModel):
    """A piece of a streamed answer."""

    event: ChatCompletionResponseEvent
    """The event in it."""


class EmbeddingsResponse(WireModel):
    """Embeddings of contents."""

    embeddings: list[list[float]]
    """One vector per content, in the order of the request; all of the model's dimension."""
    usage: Annotated[TokenUsage | None, OMIT_IF_NONE] = None
    """The tokens that it took, if the provider knows."""


class Inference(Protocol):
    """Generate text and embed content."""

    @webmethod(
        "/inference/completion",
        routed_by="model",
        capability="completion",
        argument_capabilities={"stream": "streaming", "logprobs": "logprobs", "response_format": "json_schema"},
        image_arguments=("content",),
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
        """Continue a text. With `stream`, an iterator of pieces, the last of which has the stop reason.

        content: the text; images in it need a model that sees.
        sampling_params: greedy, without a limit of tokens but the model's own, where it is left out.
        logprobs: ask for log probabilities, one entry per token.
        response_format: hold the reply to a JSON schema.

        Raises ContextLengthExceededError for a text that is longer than the model takes, and NotSupportedError, which
        names the argument, for what the provider cannot do.
        """
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
        image_arguments=("messages",),
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
        """Answer the last message of a conversation. With `stream`, an iterator of events: start, progress, complete.

        messages: in order, the newest last.
        sampling_params: greedy, without a limit of tokens but the model's own, where it is left out.
        tools: the tools that the model may call.
        tool_choice: `auto` where it is left out; `required` needs tools.
        tool_prompt_format: how calls are written in the prompt, for models that are prompted by text.
        logprobs: ask for log probabilities, one entry per token.
        response_format: hold the reply to a JSON schema.

        Raises ContextLengthExceededError for a conversation that is longer than the model takes, and NotSupportedError,
        which names the argument, for what the provider cannot do.
        """
        raise not_served()

    @webmethod("/inference/embeddings", routed_by="model", capability="embeddings", image_arguments=("contents",))
    async def embeddings(
        self,
        model: str,
        contents: Annotated[list[InterleavedTextMedia], Field(min_length=1)],
    ) -> EmbeddingsResponse:
        """One vector per content.

        contents: texts, or images where the model embeds them.

        Raises ContextLengthExceededError for a content that is longer than the model takes.
        """
        raise not_served()
