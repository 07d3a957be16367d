"""Checks of whole replies: chats, text completions, embeddings."""

from __future__ import annotations

import math
from typing import Any

from llamastack.api.common import (
    CompletionMessage,
    SamplingParams,
    SamplingStrategy,
    StopReason,
    SystemMessage,
    UserMessage,
)
from llamastack.provider.errors import NotSupportedError
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.shapes import well_formed
from llamastack_conformance.suites.inference_calls import COUNT, InferenceCalls, check_plain_message, text_of_reply
from llamastack_conformance.suites.suite import refused

# By the parameter that each value is for.
_SAMPLING: dict[str, dict[str, Any]] = {
    "top_p": {"strategy": SamplingStrategy.top_p, "temperature": 0.7, "top_p": 0.9},
    "top_k": {"strategy": SamplingStrategy.top_k, "temperature": 0.7, "top_k": 20},
    "repetition_penalty": {"repetition_penalty": 1.1},
    "seed": {"strategy": SamplingStrategy.top_p, "temperature": 0.7, "seed": 7},
}


class ReplyChecks(InferenceCalls):
    """The checks of whole replies."""

    @check(
        "chat_completion.works",
        tier=Tier.live,
        capability="chat_completion",
        mend="return a ChatCompletionResponse with a CompletionMessage: text, stop_reason, tool_calls []",
    )
    async def test_chat_completion_works(self, subject: Subject) -> None:
        """the answer to a question is a ChatCompletionResponse with text and a stop_reason, without tool calls and
        logprobs
        """
        async with subject.shared() as running:
            reply = await self.known(running, self._chat)
        well_formed(subject.method("chat_completion"), reply)
        check_plain_message(reply.completion_message)
        if reply.logprobs is not None:
            raise CheckFailure("logprobs, although the request did not ask for them")

    @check(
        "chat_completion.conversation",
        tier=Tier.live,
        capability="chat_completion",
        mend="take system, user and assistant messages in their order, and content in parts",
    )
    async def test_chat_completion_conversation(self, subject: Subject) -> None:
        """a conversation with a system message, an earlier answer, context and text in parts gets an answer"""
        messages = [
            SystemMessage(content="You are brief."),
            UserMessage(content="Name a city."),
            CompletionMessage(content="Paris", stop_reason=StopReason.end_of_turn),
            UserMessage(content=["And", "another?"], context="Rome is a city."),
        ]
        async with subject.shared() as running:
            reply = await self._chat(running, messages=messages)
        check_plain_message(reply.completion_message)

    @check(
        "chat_completion.max-tokens",
        tier=Tier.live,
        capability="chat_completion",
        mend="pass `max_tokens` to the backend, and return StopReason.out_of_tokens if it ended the reply",
    )
    async def test_chat_completion_max_tokens(self, subject: Subject) -> None:
        """a reply that `max_tokens` cuts off has the stop_reason out_of_tokens"""
        async with subject.shared() as running:
            reply = await self._chat(running, COUNT, sampling_params=SamplingParams(max_tokens=2))
        if reply.completion_message.stop_reason is not StopReason.out_of_tokens:
            raise CheckFailure(f"stop_reason {reply.completion_message.stop_reason} for {text_of_reply(reply)!r}")

    @check(
        "chat_completion.stop",
        tier=Tier.live,
        capability="chat_completion",
        mend="pass `stop` to the backend, and leave the text that ended the reply out of it",
    )
    async def test_chat_completion_stop(self, subject: Subject) -> None:
        """a text of `stop` ends the reply and is no part of it"""
        async with subject.shared() as running:
            whole = text_of_reply(await self._chat(running))
            # A whole word is used: a backend that compares tokens would not find a part of one.
            words = [word for word in whole.split()[1:] if word not in whole.partition(word)[0] and len(word) > 1]
            if not words:
                raise NotApplicable(f"the model's reply is too short to be stopped: {whole!r}")
            middle = words[len(words) // 2]
            cut = await self._chat(running, sampling_params=SamplingParams(max_tokens=12, stop=[middle]))
        if middle in text_of_reply(cut) or len(text_of_reply(cut)) >= len(whole):
            raise CheckFailure(f"{text_of_reply(cut)!r} with stop [{middle!r}]; without it {whole!r}")

    @check(
        "chat_completion.sampling",
        tier=Tier.live,
        capability="chat_completion",
        mend="pass the parameter to the backend, or raise NotSupportedError with param='sampling_params.<name>'",
    )
    async def test_chat_completion_sampling(self, subject: Subject) -> None:
        """each sampling parameter is accepted, or refused with a NotSupportedError (501) that names it"""
        async with subject.shared() as running:
            for name, given in _SAMPLING.items():
                try:
                    reply = await self._chat(running, sampling_params=SamplingParams(max_tokens=4, **given))
                except NotSupportedError as error:
                    if error.param != f"sampling_params.{name}":
                        raise CheckFailure(f"for {name} param is {error.param!r}: {error.message}") from None
                else:
                    check_plain_message(reply.completion_message)

    test_chat_completion_refused = refused("chat_completion")

    @check(
        "completion.works",
        tier=Tier.live,
        capability="completion",
        mend="return a CompletionResponse with a CompletionMessage",
    )
    async def test_completion_works(self, subject: Subject) -> None:
        """the completion of a text is a CompletionResponse with text and a stop_reason"""
        async with subject.shared() as running:
            reply = await self._complete(running)
        well_formed(subject.method("completion"), reply)
        check_plain_message(reply.completion_message)

    test_completion_refused = refused("completion")

    @check(
        "embeddings.works",
        tier=Tier.live,
        capability="embeddings",
        mend="return one vector per content, in their order, all of the model's dimension",
    )
    async def test_embeddings_works(self, subject: Subject) -> None:
        """each content gets one vector, in order, of one dimension, finite, and the same for the same text"""
        async with subject.shared() as running:
            reply = await self._embed(running, ["a llama", "an entirely different thing, a car", "a llama"])
        well_formed(subject.method("embeddings"), reply)
        vectors = reply.embeddings
        if len(vectors) != 3:
            raise CheckFailure(f"{len(vectors)} vectors for 3 contents")
        sizes = {len(vector) for vector in vectors}
        if len(sizes) != 1 or sizes == {0}:
            raise CheckFailure(f"vectors of {sorted(sizes)} numbers")
        if not all(math.isfinite(number) for vector in vectors for number in vector):
            raise CheckFailure("numbers that are not finite")
        if _likeness(vectors[0], vectors[2]) <= _likeness(vectors[0], vectors[1]):
            raise CheckFailure("the same text is less like itself than like another", wanted="vectors in order")

    test_embeddings_refused = refused("embeddings")


def _likeness(left: list[float], right: list[float]) -> float:
    """Cosine of the angle between two vectors."""
    product = sum(a * b for a, b in zip(left, right, strict=True))
    return product / ((math.hypot(*left) * math.hypot(*right)) or 1.0)
