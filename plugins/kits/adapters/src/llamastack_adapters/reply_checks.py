"""Checks that a reply has what its request asked for: some backends ignore parameters without an error."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import pydantic_core

from llamastack.api.common import SamplingParams, StopReason, ToolChoice
from llamastack.api.inference import (
    ChatCompletionResponse,
    ChatCompletionResponseEvent,
    ChatCompletionResponseStreamChunk,
    CompletionResponse,
    CompletionResponseStreamChunk,
    LogProbConfig,
    ResponseFormat,
)
from llamastack.provider.errors import BackendError, NotSupportedError
from llamastack.provider.streams import closing

if TYPE_CHECKING:
    from llamastack_adapters.openai_dialect.protocols import OpenAIForm
    from llamastack_adapters.openai_dialect.streams import ChatPiece

_T = TypeVar("_T")
_KINDS: dict[str, type] = {"object": dict, "array": list, "string": str, "boolean": bool}


class ReplyChecks(NamedTuple):
    """What to look for in the replies to one request. A stream is checked as it passes.

    Nothing is required of a reply in which the model refuses to answer or a content filter ends the reply.

    provider_id: the provider's id, for error messages.
    logprobs: log probabilities beside text.
    json: text that is JSON.
    stops: the beginning of that JSON is enough, because a stop text may end it.
    kind: the `type` at the top of the schema, which the JSON must have; None for any.
    tool_call: a call of a tool.
    """

    provider_id: str
    logprobs: bool = False
    json: bool = False
    stops: bool = False
    kind: object = None
    tool_call: bool = False

    @classmethod
    def of(
        cls,
        provider_id: str,
        *,
        sampling_params: SamplingParams | None = None,
        tool_choice: ToolChoice | None = None,
        logprobs: LogProbConfig | None = None,
        response_format: ResponseFormat | None = None,
    ) -> ReplyChecks:
        """The checks for a request with these arguments."""
        stops = sampling_params is not None and bool(sampling_params.stop)  # a stop text may end the JSON early
        return cls(
            provider_id,
            logprobs=logprobs is not None,
            json=response_format is not None,
            stops=stops,
            kind=None if response_format is None else response_format.json_schema.get("type"),
            tool_call=tool_choice is ToolChoice.required,
        )

    @classmethod
    def of_form(cls, provider_id: str, form: OpenAIForm) -> ReplyChecks:
        """The checks for a request in OpenAI's form."""
        fields, schema = form.fields, form.json_schema
        return cls(
            provider_id,
            logprobs="logprobs" in fields,
            json=schema is not None,
            stops="stop" in fields,
            kind=None if schema is None else schema.get("type"),
            tool_call=fields.get("tool_choice") == "required",
        )

    def chat(self, reply: ChatCompletionResponse) -> ChatCompletionResponse:
        """The reply. Raises NotSupportedError or BackendError when it lacks what was asked for."""
        message = reply.completion_message
        text = message.content if isinstance(message.content, str) else ""
        if reply.refusal is not None or reply.stop_detail is not None:
            return reply  # it is no normal answer
        if self.logprobs and text and not reply.logprobs:
            raise self._ignored("logprobs")
        self._finished(text, message.stop_reason, called=bool(message.tool_calls or reply.failed_tool_calls))
        return reply

    def completion(self, reply: CompletionResponse) -> CompletionResponse:
        """The reply of a text completion. Raises as `chat` does."""
        text = str(reply.completion_message.content)
        if reply.stop_detail is not None:
            return reply
        if self.logprobs and text and not reply.logprobs:
            raise self._ignored("logprobs")
        self._finished(text, reply.completion_message.stop_reason, called=True)
        return reply

    def chat_events(
        self, events: AsyncIterator[ChatCompletionResponseStreamChunk]
    ) -> AsyncIterator[ChatCompletionResponseStreamChunk]:
        """The events of a stream. It raises if something is missing."""
        return self._checked_events(events, _event_of) if self._looks else events

    def chat_pieces(self, pieces: AsyncIterator[ChatPiece]) -> AsyncIterator[ChatPiece]:
        """The same of pieces that are not native yet."""
        return self._checked_events(pieces, _itself) if self._looks else pieces

    @property
    def _looks(self) -> bool:
        return self.logprobs or self.json or self.tool_call

    def completion_pieces(
        self, pieces: AsyncIterator[CompletionResponseStreamChunk]
    ) -> AsyncIterator[CompletionResponseStreamChunk]:
        """The pieces of a stream. It raises if something is missing."""
        return self._checked_pieces(pieces) if self.logprobs or self.json else pieces

    async def _checked_events(
        self, events: AsyncIterator[_T], event_of: Callable[[_T], ChatCompletionResponseEvent | ChatPiece]
    ) -> AsyncIterator[_T]:
        text: list[str] = []
        called = refused = False
        async with closing(events):
            async for chunk in events:
                event = event_of(chunk)
                if event.refusal:
                    refused = True
                elif isinstance(event.delta, str):
                    text.append(event.delta)
                    if self.logprobs and event.delta and not event.logprobs:
                        raise self._ignored("logprobs")
                else:
                    called = True
                if event.stop_reason is not None and event.stop_detail is None and not refused:
                    self._finished("".join(text), event.stop_reason, called=called)
                yield chunk

    async def _checked_pieces(
        self, pieces: AsyncIterator[CompletionResponseStreamChunk]
    ) -> AsyncIterator[CompletionResponseStreamChunk]:
        text: list[str] = []
        async with closing(pieces):
            async for piece in pieces:
                text.append(piece.delta)
                if self.logprobs and piece.delta and not piece.logprobs:
                    raise self._ignored("logprobs")
                if piece.stop_reason is not None and piece.stop_detail is None:
                    self._finished("".join(text), piece.stop_reason, called=True)
                yield piece

    def _finished(self, text: str, reason: StopReason, *, called: bool) -> None:
        if reason is StopReason.out_of_tokens:
            return
        if self.tool_call and not called:
            raise self._ignored("tool_choice")
        if self.json and (text or not called):
            try:
                value = pydantic_core.from_json(text, allow_partial=self.stops)
            except ValueError:
                value = ValueError
            if not isinstance(value, _KINDS.get(str(self.kind), object)) or value is ValueError:
                raise BackendError(
                    f"the backend of provider '{self.provider_id}' did not apply the JSON schema: {text}",
                    provider_id=self.provider_id,
                )

    def _ignored(self, param: str) -> NotSupportedError:
        return NotSupportedError(
            f"the backend of provider '{self.provider_id}' ignored '{param}': its reply lacks what that asks for",
            provider_id=self.provider_id,
            param=param,
        )


def _event_of(chunk: ChatCompletionResponseStreamChunk) -> ChatCompletionResponseEvent:
    return chunk.event


def _itself(piece: ChatPiece) -> ChatPiece:
    return piece
