"""Checks of inference providers that take requests in OpenAI's form: `forward_openai`.

Source of the formats: https://platform.openai.com/docs/api-reference/chat.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from llamastack.http.sse import EVENT_ENDS, iter_data
from llamastack.provider.provider_call import ProviderCall, ProviderMethod
from llamastack.provider.streams import close, closing
from llamastack_adapters.openai_dialect import OpenAIRequest
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.inference_calls import QUESTION, InferenceCalls


class ForwardingChecks(InferenceCalls):
    """The answer to a request in OpenAI's form is in OpenAI's form."""

    @check(
        "forwarded.reply",
        tier=Tier.live,
        capability="chat_completion",
        mend="send `request.body_for(the backend's name of the model)`, and return the answer as bytes; raise if the "
        "answer is an error",
    )
    async def test_forwarded_reply(self, subject: Subject) -> None:
        """a request in OpenAI's form comes back as OpenAI's JSON: choices with a message and a finish_reason"""
        async with subject.shared() as running:
            answer = await self._forwarded(running)
            await close(answer)
        if not isinstance(answer, bytes):
            raise CheckFailure(f"{type(answer).__name__}", wanted="bytes")
        choices = _choices_of(answer)
        for choice in choices:
            message = choice.get("message")
            if not isinstance(message, dict) or not message.get("content") or not choice.get("finish_reason"):
                raise CheckFailure(f"{choice}", wanted="a message with content, and a finish_reason")
        if not choices:
            raise CheckFailure("no choice")

    @check(
        "forwarded.stream",
        tier=Tier.live,
        capability="chat_completion",
        mend="yield blocks that end where an event ends, up to `data: [DONE]`",
    )
    async def test_forwarded_stream(self, subject: Subject) -> None:
        """a stream in OpenAI's form is blocks of whole events, with deltas and a finish_reason, that end with [DONE]"""
        if not subject.declares("streaming"):
            raise NotApplicable("the provider declares no `streaming`")
        async with subject.shared() as running:
            answer = await self._forwarded(running, stream=True)
            if not isinstance(answer, AsyncIterator):
                raise CheckFailure(f"{type(answer).__name__}", wanted="an async iterator of bytes")
            async with closing(answer):
                blocks = [block async for block in answer]
        if not all(isinstance(block, bytes) for block in blocks):
            raise CheckFailure(f"{ {type(block).__name__ for block in blocks} }", wanted="blocks of bytes")
        cut = [block for block in blocks if not block.endswith(EVENT_ENDS)]
        if cut:
            raise CheckFailure(f"a block that ends with {cut[0][-40:]!r}", wanted="blocks of whole events")
        events = [data async for data in iter_data(_one_by_one(blocks))]
        if not events or events[-1] != b"[DONE]":
            raise CheckFailure(f"{events[-1:]} as the last event", wanted="[DONE]")
        choices = [choice for data in events[:-1] for choice in _choices_of(data)]
        deltas = [choice.get("delta") for choice in choices]
        if not any(isinstance(delta, dict) and delta.get("content") for delta in deltas):
            raise CheckFailure(f"deltas {deltas[:3]}", wanted="some with content")
        if not any(choice.get("finish_reason") for choice in choices):
            raise CheckFailure("no finish_reason")

    async def _forwarded(self, running: Running, **more: Any) -> Any:
        """What the provider answers through the stack, as at `/v1/chat/completions`."""
        if not hasattr(running.provider, "forward_openai"):
            raise NotApplicable("the provider forwards no requests in OpenAI's form")
        # The name is one that no backend knows: the provider must replace it with the backend's name.
        model = await self._model(running)
        asked = {"model": model, "messages": [{"role": "user", "content": QUESTION}], **more}
        # A backend may know only one of these names, and a provider need not forward the other.
        for limit in ({"max_tokens": 12}, {"max_completion_tokens": 12}, {}):
            answer = await self._forward(running, {**asked, **limit})
            if answer is not None:
                return answer
        raise CheckFailure("None", wanted="an answer to a request with only messages, which every such backend accepts")

    async def _forward(self, running: Running, body: dict[str, Any]) -> Any:
        """The answer to a body in OpenAI's form; None if the provider does not forward it."""
        content, stream = json.dumps(body).encode(), bool(body.get("stream"))
        return await running.stack.routed_calls("inference").call(_FORWARD, body["model"], body, content, stream=stream)


async def _one_by_one(blocks: list[bytes]) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block


def _request(call: ProviderCall) -> OpenAIRequest:
    fields, body = call.request, call.body or b""
    return OpenAIRequest("chat/completions", call.identifier, body, fields.keys(), call.stream, named=fields["model"])


_FORWARD = ProviderMethod("forward_openai", "chat_completion", _request, lambda _: {}, takes="takes_openai")


def _choices_of(content: bytes) -> list[dict[str, Any]]:
    """The choices of an answer of OpenAI's API, or of one event; the event with the usage has none."""
    try:
        choices = json.loads(content)["choices"]
    except (ValueError, LookupError, TypeError):
        choices = None
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise CheckFailure(f"{content[:200]!r}", wanted="JSON with `choices`")
    return choices
