"""Checks of inference providers that take chats in the form that `/v1` has inside: `openai_chat`.

Source of the formats: https://platform.openai.com/docs/api-reference/chat, and `OpenAIProtocolPrivate`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from llamastack.provider.errors import RateLimitError
from llamastack.provider.provider_call import ProviderCall, ProviderMethod
from llamastack.provider.streams import close
from llamastack_adapters.openai_dialect import OpenAIForm
from llamastack_conformance.backend_tap import answer
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.failure import expect_error
from llamastack_conformance.suites.inference_calls import QUESTION, InferenceCalls

_FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter")
_LIMITED = answer(429, json.dumps({"error": {"message": "slow down"}, "message": "slow down"}), retry_after="3600")


class FormChecks(InferenceCalls):
    """A chat in OpenAI's form is answered in OpenAI's form."""

    @check(
        "form.reply",
        tier=Tier.live,
        capability="chat_completion",
        mend="return a mapping as `OpenAIProtocolPrivate.openai_chat` describes it",
    )
    async def test_form_reply(self, subject: Subject) -> None:
        """a chat in OpenAI's form is answered with one choice, which has a message and a finish_reason, and a usage"""
        async with subject.shared() as running:
            reply = await self.known(running, self._asked)
        choice = _choice_of(reply)
        message = choice.get("message")
        if not isinstance(message, Mapping) or message.get("role") != "assistant" or not message.get("content"):
            raise CheckFailure(f"message {message}", wanted="the role `assistant`, and content")
        _check_finish_reason(choice)

    @check(
        "form.fields",
        tier=Tier.live,
        capability="chat_completion",
        mend="pass what `form.fields` holds to the backend, and say in `finish_reason` how the reply ended",
    )
    async def test_form_fields(self, subject: Subject) -> None:
        """`max_tokens` and `stop` of a form have their effect: the finish_reason `length`, and a reply that ends"""
        async with subject.shared() as running:
            cut = _choice_of(await self._asked(running, max_tokens=2))
            if cut.get("finish_reason") != "length":
                raise CheckFailure(f"{cut} with max_tokens 2", wanted="the finish_reason `length`")
            whole = _content_of(await self.known(running, self._asked))
            words = [word for word in whole.split()[1:] if word not in whole.partition(word)[0] and len(word) > 1]
            if not words:
                raise NotApplicable(f"the model's reply is too short to be stopped: {whole!r}")
            middle = words[len(words) // 2]
            stopped = _content_of(await self._asked(running, stop=[middle]))
        if middle in stopped or len(stopped) >= len(whole):
            raise CheckFailure(f"{stopped!r} with stop [{middle!r}]; without it {whole!r}")

    @check(
        "form.stream",
        tier=Tier.live,
        capability="chat_completion",
        mend="yield chunks of one choice each, whose `delta` has the text; the last one has the finish_reason",
    )
    async def test_form_stream(self, subject: Subject) -> None:
        """a stream in OpenAI's form is chunks of one choice each, with deltas, and with one finish_reason"""
        if not subject.declares("streaming"):
            raise NotApplicable("the provider declares no `streaming`")
        async with subject.shared() as running:
            chunks = await self.known(running, self._asked, stream=True)
        if not isinstance(chunks, list):
            raise CheckFailure(f"{type(chunks).__name__}", wanted="an async iterator of chunks")
        choices = [_choice_of(chunk) for chunk in chunks]
        deltas = [choice.get("delta") for choice in choices]
        if not any(isinstance(delta, Mapping) and delta.get("content") for delta in deltas):
            raise CheckFailure(f"deltas {deltas[:3]}", wanted="some with content")
        ends = [choice for choice in choices if choice.get("finish_reason") is not None]
        if len(ends) != 1:
            raise CheckFailure(f"{len(ends)} chunks with a finish_reason", wanted="one")
        _check_finish_reason(ends[0])

    @check(
        "form.errors",
        tier=Tier.failure,
        capability="chat_completion",
        mend="raise for a chat in OpenAI's form what the native methods raise",
    )
    async def test_form_errors(self, subject: Subject) -> None:
        """a 429 of the backend to a chat in OpenAI's form is RateLimitError (429) with the provider's id"""
        async with subject.start(tapped=True) as running:
            await self.prepare(running)
            self._require_form(running)
            running.tap.disturb(inject=lambda _: _LIMITED)
            await expect_error(running, lambda: self._asked(running), RateLimitError)
            running.tap.clear()

    def _require_form(self, running: Running) -> None:
        if not hasattr(running.provider, "openai_chat"):
            raise NotApplicable("the provider takes no chats in OpenAI's form")

    async def _asked(self, running: Running, *, stream: bool = False, model: str | None = None, **more: Any) -> Any:
        """What the provider answers through the stack, as at `/v1/chat/completions`."""
        self._require_form(running)
        model = model or await self._model(running)
        fields = {
            "messages": [{"role": "user", "content": QUESTION}],
            "temperature": 0.0,  # so that a second reply is that of the first
            "max_tokens": 12,
            **more,
        }
        body = json.dumps({"model": model, **fields, "stream": stream}).encode()
        reply = await running.stack.routed_calls("inference").call(_TAKE_FORM, model, fields, body, stream=stream)
        if not stream and isinstance(reply, AsyncIterator):
            await close(reply)
            raise CheckFailure("a stream", wanted="a whole reply")
        return reply


def _form(call: ProviderCall) -> OpenAIForm:
    return OpenAIForm(call.identifier, call.request, call.stream)


_TAKE_FORM = ProviderMethod("openai_chat", "chat_completion", _form, lambda _: {})


def _choice_of(reply: Any) -> Mapping[str, Any]:
    """The choice of a reply, or of a chunk."""
    choices = reply.get("choices") if isinstance(reply, Mapping) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], Mapping):
        raise CheckFailure(f"{str(reply)[:200]}", wanted="a mapping with `choices`, which has one")
    if "usage" not in reply:
        raise CheckFailure(f"fields {', '.join(reply)}", wanted="`usage`, which is null where it is not known")
    return choices[0]


def _content_of(reply: Any) -> str:
    message = _choice_of(reply).get("message")
    return str(message.get("content") or "") if isinstance(message, Mapping) else ""


def _check_finish_reason(choice: Mapping[str, Any]) -> None:
    if choice.get("finish_reason") not in _FINISH_REASONS:
        raise CheckFailure(f"finish_reason {choice.get('finish_reason')!r}", wanted=" or ".join(_FINISH_REASONS))
