"""The arguments of a chat and of a text completion, each as one value, and base classes that make it from a call.

A provider derives from `ChatInference`, `CompletionInference` or both, and implements `chat` and `complete`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from llamastack.api.common import (
    InterleavedTextMedia,
    Message,
    SamplingParams,
    ToolChoice,
    ToolDefinition,
    ToolPromptFormat,
)
from llamastack.api.inference import (
    ChatCompletionResponse,
    ChatCompletionResponseStreamChunk,
    CompletionResponse,
    CompletionResponseStreamChunk,
    Inference,
    LogProbConfig,
    ResponseFormat,
)

__all__ = ["ChatInference", "ChatReply", "ChatRequest", "CompletionInference", "CompletionReply", "CompletionRequest"]

ChatReply = ChatCompletionResponse | AsyncIterator[ChatCompletionResponseStreamChunk]
"""The reply to a chat: a stream if the request asks for one."""
CompletionReply = CompletionResponse | AsyncIterator[CompletionResponseStreamChunk]
"""The reply to a text completion: a stream if the request asks for one."""


class ChatRequest(NamedTuple):
    """The arguments of `chat_completion`, as `Inference` describes them."""

    model: str
    """The identifier of the model, as the stack knows it."""
    messages: Sequence[Message]
    """The messages in order, the newest last."""
    sampling_params: SamplingParams | None = None
    """Greedy where it is left out; see `sampling`."""
    tools: Sequence[ToolDefinition] | None = None
    """The tools that the model may call."""
    tool_choice: ToolChoice | None = None
    """Whether the model must call a tool."""
    tool_prompt_format: ToolPromptFormat | None = None
    """The form of tool calls in the prompt, for models whose prompt is text."""
    stream: bool = False
    """Whether a stream is wanted."""
    logprobs: LogProbConfig | None = None
    """Ask for log probabilities, one entry per token."""
    response_format: ResponseFormat | None = None
    """The form that the reply must have."""

    @property
    def sampling(self) -> SamplingParams:
        """The sampling parameters; those of a greedy reply where the call has none."""
        return self.sampling_params or SamplingParams()


class CompletionRequest(NamedTuple):
    """The arguments of `completion`, as `Inference` describes them."""

    model: str
    """The identifier of the model, as the stack knows it."""
    content: InterleavedTextMedia
    """The text to continue."""
    sampling_params: SamplingParams | None = None
    """Greedy where it is left out; see `sampling`."""
    stream: bool = False
    """Whether a stream is wanted."""
    logprobs: LogProbConfig | None = None
    """Ask for log probabilities, one entry per token."""
    response_format: ResponseFormat | None = None
    """The form that the reply must have."""

    @property
    def sampling(self) -> SamplingParams:
        """The sampling parameters; those of a greedy reply where the call has none."""
        return self.sampling_params or SamplingParams()


class ChatInference(Inference):
    """Base of providers that answer chats. A subclass implements `chat`."""

    async def chat_completion(
        self,
        model: str,
        messages: list[Message],
        sampling_params: SamplingParams | None = None,
        tools: list[ToolDefinition] | None = None,
        tool_choice: ToolChoice | None = None,
        tool_prompt_format: ToolPromptFormat | None = None,
        stream: bool | None = None,
        logprobs: LogProbConfig | None = None,
        response_format: ResponseFormat | None = None,
    ) -> ChatReply:
        """Make the request of the call's arguments, and answer it with `chat`."""
        return await self.chat(
            ChatRequest(
                model,
                messages,
                sampling_params,
                tools,
                tool_choice,
                tool_prompt_format,
                bool(stream),
                logprobs,
                response_format,
            )
        )

    @abstractmethod
    async def chat(self, request: ChatRequest) -> ChatReply:
        """Answer the last message of a conversation, as `Inference.chat_completion` describes it."""


class CompletionInference(Inference):
    """Base of providers that continue texts. A subclass implements `complete`."""

    async def completion(
        self,
        model: str,
        content: InterleavedTextMedia,
        sampling_params: SamplingParams | None = None,
        stream: bool | None = None,
        logprobs: LogProbConfig | None = None,
        response_format: ResponseFormat | None = None,
    ) -> CompletionReply:
        """Make the request of the call's arguments, and answer it with `complete`."""
        return await self.complete(
            CompletionRequest(model, content, sampling_params, bool(stream), logprobs, response_format)
        )

    @abstractmethod
    async def complete(self, request: CompletionRequest) -> CompletionReply:
        """Continue a text, as `Inference.completion` describes it."""
