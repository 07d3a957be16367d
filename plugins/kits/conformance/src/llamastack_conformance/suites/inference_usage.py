"""Checks that the counted tokens fit the text, and that the limit of tokens holds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from llamastack.api.common import CompletionMessage, SamplingParams, StopReason, SystemMessage, UserMessage
from llamastack.api.inference import TokenUsage
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.suites.inference_calls import BRIEF, COUNT, LONG, SHORT, InferenceCalls, text_of_reply
from llamastack_conformance.suites.inference_wholes import said

_BRIEFEST = SamplingParams(max_tokens=2)
_TEMPLATE_TOKENS = 400  # a system prompt of the template's own, roles and separators
_MOST_CHARS_PER_TOKEN = 20
_MOST_TOKENS_PER_CHAR = 4
_STORY = "Once upon a time there was a llama that lived on a mountain and liked to sing in the morning. "


class UsageChecks(InferenceCalls):
    """The checks of the usage and of its limit."""

    @check(
        "usage.chat",
        tier=Tier.live,
        capability="chat_completion",
        mend="return the backend's own counts: prompt_tokens for what was sent, completion_tokens for what was made",
    )
    async def test_usage_chat(self, subject: Subject) -> None:
        """the usage of a chat fits its texts, and grows with each message; `max_tokens` limits the tokens made"""
        async with subject.shared() as running:
            reply = await self.known(running, self._chat, COUNT, sampling_params=LONG)
            _check_limit(reply, LONG)
            usage = _usage_of(reply)
            _check_prompt("the chat", usage.prompt_tokens, len(COUNT))
            _check_made(reply, usage, LONG)
            said = CompletionMessage(content=_STORY, stop_reason=StopReason.end_of_turn)
            for earlier in (
                [SystemMessage(content=_STORY)],
                [UserMessage(content=_STORY)],
                [UserMessage(content="Hi."), said],
            ):
                messages = [*earlier, UserMessage(content=COUNT)]
                longer = _usage_of(await self._chat(running, messages=messages, sampling_params=_BRIEFEST))
                _check_growth(type(earlier[-1]).__name__, longer, usage, len(_STORY))

    @check(
        "usage.completion",
        tier=Tier.live,
        capability="completion",
        mend="return the backend's own counts: prompt_tokens for what was sent, completion_tokens for what was made",
    )
    async def test_usage_completion(self, subject: Subject) -> None:
        """the usage of a text completion fits its texts, and `max_tokens` limits the tokens made"""
        async with subject.shared() as running:
            reply = await self.known(running, self._complete)
            _check_limit(reply, SHORT)
            usage = _usage_of(reply)
            _check_prompt("the text", usage.prompt_tokens, len("One, two, three,"))
            _check_made(reply, usage, SHORT)
            longer = _usage_of(await self._complete(running, _STORY, sampling_params=BRIEF))
            _check_growth("a longer text", longer, usage, len(_STORY))

    @check(
        "usage.streamed",
        tier=Tier.live,
        capability="streaming",
        mend="ask the backend for the usage of streams, and put it into the last piece only",
    )
    async def test_usage_streamed(self, subject: Subject) -> None:
        """a stream has the usage of the whole reply, in its last piece only"""
        asked: list[tuple[str, Callable[..., Awaitable[Any]]]] = []
        async with subject.shared() as running:
            if subject.declares("chat_completion"):
                asked.append(("a chat", partial(self.known, running, self._chat, COUNT, sampling_params=LONG)))
            if subject.declares("completion"):
                asked.append(("a text completion", partial(self.known, running, self._complete)))
            for name, ask in asked:
                usage = _usage_of(await ask())
                pieces = await ask(stream=True)
                found = said(pieces).usage
                early = [place for place, piece in enumerate(pieces[:-1]) if said([piece]).usage is not None]
                if found != usage or early:
                    raise CheckFailure(f"{name}: {usage} whole; streamed {found}, and in pieces {early}")

    @check(
        "usage.embeddings",
        tier=Tier.live,
        capability="embeddings",
        mend="return the backend's count as prompt_tokens, added up over all requests of a call",
    )
    async def test_usage_embeddings(self, subject: Subject) -> None:
        """the usage of embeddings fits the texts, grows with their number, and has no completion_tokens"""
        text = "a llama on a mountain in the morning"
        async with subject.shared() as running:
            one = _usage_of(await self._embed(running, [text]))
            four = _usage_of(await self._embed(running, [text] * 4))
        _check_prompt("one text", one.prompt_tokens, len(text))
        if one.completion_tokens or four.completion_tokens:
            raise CheckFailure(f"{four.completion_tokens} completion_tokens of an embedding", wanted="0")
        if not 2 * one.prompt_tokens <= four.prompt_tokens <= 6 * one.prompt_tokens:
            raise CheckFailure(f"{one.prompt_tokens} tokens for a text, {four.prompt_tokens} for four of it")


def _usage_of(reply: Any) -> TokenUsage:
    usage = reply.usage
    if usage is None:
        raise NotApplicable("the backend counts no tokens")
    if not isinstance(usage, TokenUsage):
        raise CheckFailure(f"usage {usage!r}", wanted="a TokenUsage")
    if usage.prompt_tokens < 0 or usage.completion_tokens < 0:
        raise CheckFailure(f"{usage}", wanted="no negative count")
    return usage


def _check_prompt(what: str, tokens: int, characters: int) -> None:
    least, most = characters / _MOST_CHARS_PER_TOKEN, characters * _MOST_TOKENS_PER_CHAR + _TEMPLATE_TOKENS
    if not least <= tokens <= most:
        raise CheckFailure(f"{tokens} prompt_tokens for {what} of {characters} characters")


def _check_made(reply: Any, usage: TokenUsage, params: SamplingParams) -> None:
    text, made = text_of_reply(reply), usage.completion_tokens
    cut = reply.completion_message.stop_reason is StopReason.out_of_tokens
    least = max(1, len(text) / _MOST_CHARS_PER_TOKEN, params.max_tokens - 1 if cut else 0)
    if not least <= made <= params.max_tokens + 1:
        raise CheckFailure(f"{made} completion_tokens for {text!r} with max_tokens {params.max_tokens}")


def _check_limit(reply: Any, params: SamplingParams) -> None:
    text = text_of_reply(reply)
    if len(text.split()) > params.max_tokens + 1:
        raise CheckFailure(f"{len(text.split())} words with max_tokens {params.max_tokens}: {text!r}")


def _check_growth(what: str, longer: TokenUsage, usage: TokenUsage, characters: int) -> None:
    grown = longer.prompt_tokens - usage.prompt_tokens
    if not characters / _MOST_CHARS_PER_TOKEN <= grown <= characters * _MOST_TOKENS_PER_CHAR:
        raise CheckFailure(
            f"prompt_tokens grow by {grown} with {what}, in all {characters} characters more",
            wanted="a count of everything that was sent",
        )
