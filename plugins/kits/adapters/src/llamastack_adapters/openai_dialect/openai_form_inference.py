"""Base classes of providers that use OpenAI's form for requests and replies.

A subclass implements `send_chat`, and `send_text` if it has text completions. These serve both native calls and `/v1`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import Any

from llamastack.api.inference import (
    ChatCompletionResponse,
    CompletionResponse,
    CompletionResponseStreamChunk,
    LogProbConfig,
)
from llamastack.provider.streams import Stream, close, closing
from llamastack_adapters.chat_request import (
    ChatInference,
    ChatReply,
    ChatRequest,
    CompletionInference,
    CompletionReply,
    CompletionRequest,
)
from llamastack_adapters.openai_dialect.collecting import collect_chat, collect_completion
from llamastack_adapters.openai_dialect.protocols import OpenAIForm
from llamastack_adapters.openai_dialect.replies import chat_response, completion_response
from llamastack_adapters.openai_dialect.replies_from_native import (
    Reply,
    chat_chunks,
    chat_reply,
    completion_chunks,
    completion_reply,
)
from llamastack_adapters.openai_dialect.requests_from_native import chat_form, completion_form
from llamastack_adapters.openai_dialect.streams import ChatPiece, chat_pieces, completion_stream, native_chat
from llamastack_adapters.reply_checks import ReplyChecks

__all__ = ["BackendReply", "FormChatInference", "FormCompletionInference"]

BackendReply = Mapping[str, Any] | AsyncIterator[Mapping[str, Any]]
"""The reply of a backend in OpenAI's form, as far as backends keep to it; chunks for a stream."""


class FormChatInference(ChatInference):
    """Base of providers that answer chats in OpenAI's form. A subclass has `provider_id` and `send_chat`."""

    provider_id: str
    """The id that this instance has in the run config, for error messages."""

    @abstractmethod
    async def send_chat(self, form: OpenAIForm) -> BackendReply:
        """Call the backend. Returns chunks if the form asks for a stream; else a reply, or chunks, which are collected.

        Common deviations from OpenAI's form are accepted: tool calls in pieces of any kind, halves of surrogate pairs,
        other finish reasons. An `EventStream` also tells whether a stream without a finish reason is complete.
        """

    async def chat(self, request: ChatRequest) -> ChatReply:
        answer = await self._chat(chat_form(request, self.provider_id), request.logprobs)
        if isinstance(answer, ChatCompletionResponse):
            return answer
        return Stream(native_chat(answer), answer.aclose)

    async def openai_chat(self, form: OpenAIForm) -> Reply | AsyncIterator[Reply]:
        """As `OpenAIProtocolPrivate` describes it."""
        wanted = LogProbConfig(top_k=form.fields.get("top_logprobs", 0)) if "logprobs" in form.fields else None
        answer = await self._chat(form, wanted)
        if isinstance(answer, ChatCompletionResponse):
            return chat_reply(answer, form)
        return Stream(chat_chunks(answer, form), answer.aclose)

    async def _chat(
        self, form: OpenAIForm, logprobs: LogProbConfig | None
    ) -> ChatCompletionResponse | Stream[ChatPiece]:
        checks = ReplyChecks.of_form(self.provider_id, form)
        reply = await self.send_chat(form)
        if isinstance(reply, Mapping):
            return checks.chat(chat_response(reply, self.provider_id, logprobs=logprobs))
        pieces = checks.chat_pieces(chat_pieces(reply, self.provider_id, logprobs=logprobs))
        if form.stream:
            return Stream(pieces, lambda: close(reply))
        async with closing(reply):
            return await collect_chat(pieces)


class FormCompletionInference(CompletionInference):
    """Base of providers that continue texts in OpenAI's form; as `FormChatInference`, with `send_text`."""

    provider_id: str
    """The id that this instance has in the run config, for error messages."""

    @abstractmethod
    async def send_text(self, form: OpenAIForm) -> BackendReply:
        """Call the backend to continue the text; as `send_chat`."""

    async def complete(self, request: CompletionRequest) -> CompletionReply:
        return await self._complete(completion_form(request, self.provider_id), request.logprobs)

    async def openai_completion(self, form: OpenAIForm) -> Reply | AsyncIterator[Reply]:
        """As `OpenAIProtocolPrivate` describes it."""
        wanted = LogProbConfig(top_k=form.fields["logprobs"]) if "logprobs" in form.fields else None
        answer = await self._complete(form, wanted)
        if isinstance(answer, CompletionResponse):
            return completion_reply(answer, form)
        return Stream(completion_chunks(answer, form), answer.aclose)

    async def _complete(
        self, form: OpenAIForm, logprobs: LogProbConfig | None
    ) -> CompletionResponse | Stream[CompletionResponseStreamChunk]:
        checks = ReplyChecks.of_form(self.provider_id, form)
        reply = await self.send_text(form)
        if isinstance(reply, Mapping):
            return checks.completion(completion_response(reply, self.provider_id, logprobs=logprobs))
        pieces = checks.completion_pieces(completion_stream(reply, self.provider_id, logprobs=logprobs))
        if form.stream:
            return Stream(pieces, lambda: close(reply))
        async with closing(reply):
            return await collect_completion(pieces)
