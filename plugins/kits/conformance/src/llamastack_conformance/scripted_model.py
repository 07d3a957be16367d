"""A scripted model in the place of the stack's inference providers: it records its calls, and answers at will."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from anyio.lowlevel import checkpoint

from llamastack.api.common import CompletionMessage, Message, SamplingParams, StopReason, text_of
from llamastack.api.inference import (
    ChatCompletionResponse,
    ChatCompletionResponseEvent,
    ChatCompletionResponseEventType,
    ChatCompletionResponseStreamChunk,
)
from llamastack.provider.errors import LlamaStackError
from llamastack.provider.streams import Stream
from llamastack_conformance.running import Running

_METHOD = "chat_completion"
_PIECE = 5
"""Characters in one piece of a streamed reply."""


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call of the model, as its provider gets it."""

    model: str
    messages: list[Message]
    sampling_params: SamplingParams | None
    tools: list[Any] | None
    stream: bool

    @property
    def said(self) -> list[tuple[str, str]]:
        """The role and the text of every message, in order."""
        return [(message.role, text_of(message.content)) for message in self.messages]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the model.

    error: is raised in place of the answer; in a stream, after `text`, where there is text.
    """

    text: str
    stop_reason: StopReason = StopReason.end_of_turn
    error: LlamaStackError | None = None


def _repeat(call: ModelCall) -> Reply:
    return Reply(answer_to(call.said[-1][1]))


async def _nothing(_: int) -> None:
    await checkpoint()


class ScriptedModel:
    """The calls of `chat_completion` of all inference providers of a stack.

    calls: what was asked so far. opened, closed: how many streams were begun, and how many of them were closed.
    """

    def __init__(self) -> None:
        self.calls: list[ModelCall] = []
        self.opened = 0
        self.closed = 0
        self._reply: Callable[[ModelCall], Reply] = _repeat
        self._before_piece: Callable[[int], Awaitable[None]] = _nothing

    def reply(self, reply: Callable[[ModelCall], Reply] | Reply | None = None) -> None:
        """Choose the answer to each call from now on; without one, the last message is repeated."""
        self._reply = _repeat if reply is None else (lambda _: reply) if isinstance(reply, Reply) else reply

    def wait_before_pieces(self, wait: Callable[[int], Awaitable[None]]) -> None:
        """Await this before each piece of a stream, with the piece's number from 0, and before a whole reply."""
        self._before_piece = wait

    def _wrap(self, provider: Any) -> None:
        signature = inspect.signature(getattr(provider, _METHOD))

        async def call(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            made = ModelCall(
                given["model"],
                list(given["messages"]),
                given.get("sampling_params"),
                given.get("tools"),
                bool(given.get("stream")),
            )
            self.calls.append(made)
            await checkpoint()
            if not made.stream:
                await self._before_piece(0)
            return self._answer(made)

        setattr(provider, _METHOD, call)

    def _answer(self, call: ModelCall) -> Any:
        reply = self._reply(call)
        if reply.error is not None and not (call.stream and reply.text):
            raise reply.error
        if call.stream:
            self.opened += 1
            return Stream(self._pieces(reply), self._close)
        message = CompletionMessage(content=reply.text, stop_reason=reply.stop_reason)
        return ChatCompletionResponse(completion_message=message)

    async def _close(self) -> None:
        self.closed += 1

    async def _pieces(self, reply: Reply) -> AsyncIterator[ChatCompletionResponseStreamChunk]:
        kinds = ChatCompletionResponseEventType
        yield _chunk(kinds.start, "")
        for number, at in enumerate(range(0, len(reply.text), _PIECE)):
            await self._before_piece(number)
            yield _chunk(kinds.progress, reply.text[at : at + _PIECE])
        if reply.error is not None:
            raise reply.error
        yield _chunk(kinds.complete, "", reply.stop_reason)


def answer_to(text: str) -> str:
    """What the model answers by default."""
    return f"You said: {text}"


def _chunk(
    kind: ChatCompletionResponseEventType, delta: str, reason: StopReason | None = None
) -> ChatCompletionResponseStreamChunk:
    return ChatCompletionResponseStreamChunk(
        event=ChatCompletionResponseEvent(event_type=kind, delta=delta, stop_reason=reason)
    )


@contextmanager
def scripted_model(running: Running) -> Iterator[ScriptedModel]:
    """Stand before `chat_completion` of all inference providers in the stack."""
    made = ScriptedModel()
    providers = [i.provider for i in running.stack.instances.get("inference", ()) if hasattr(i.provider, _METHOD)]
    for provider in providers:
        made._wrap(provider)
    try:
        yield made
    finally:
        for provider in providers:
            delattr(provider, _METHOD)
