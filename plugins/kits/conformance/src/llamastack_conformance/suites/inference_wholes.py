"""Checks that a stream and a whole reply say the same, and that the pieces of a stream survive any network."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from llamastack.api.common import SamplingParams, StopReason, ToolCall
from llamastack.api.inference import (
    ChatCompletionResponse,
    ChatCompletionResponseStreamChunk,
    CompletionResponse,
    TokenUsage,
    ToolCallDelta,
    ToolCallParseStatus,
)
from llamastack.http.sse import iter_data
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.inference_calls import COUNT, LONG, QUESTION, read, text_of_piece
from llamastack_conformance.suites.inference_features import FeatureChecks
from llamastack_conformance.suites.inference_ways import AskingChecks

_TRIES = 3
_ENDS = SamplingParams(max_tokens=32)


@dataclass(frozen=True)
class Said:
    """What a reply says. calls: (name, arguments) of its tool calls. usage: None if the provider does not know it."""

    text: str
    calls: tuple[tuple[str, str], ...]
    stop_reason: StopReason | None
    usage: TokenUsage | None

    def difference(self, other: Said) -> str:
        """The first part but the usage that differs, as text; empty if nothing does."""
        for name in ("text", "calls", "stop_reason"):
            mine, others = getattr(self, name), getattr(other, name)
            if mine != others:
                return f"{name} {str(mine)[:200]!r} whole, {str(others)[:200]!r} streamed"
        return ""


def said(reply: Any) -> Said:
    """What a whole native reply says, or the pieces of a streamed one."""
    if isinstance(reply, ChatCompletionResponse | CompletionResponse):
        message = reply.completion_message
        return Said(str(message.content), _shown(message.tool_calls), message.stop_reason, reply.usage)
    pieces = [piece.event if isinstance(piece, ChatCompletionResponseStreamChunk) else piece for piece in reply]
    deltas = [piece.delta for piece in pieces if isinstance(piece.delta, ToolCallDelta)]
    calls = [delta.content for delta in deltas if delta.parse_status is ToolCallParseStatus.success]
    reasons = [piece.stop_reason for piece in pieces if piece.stop_reason is not None]
    usages = [piece.usage for piece in pieces if piece.usage is not None]
    return Said(
        "".join(map(text_of_piece, reply)),
        _shown(calls),
        reasons[-1] if reasons else None,
        usages[-1] if usages else None,
    )


def _shown(calls: Iterable[Any]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (str(call.tool_name), json.dumps(call.arguments, sort_keys=True))
        for call in calls
        if isinstance(call, ToolCall)
    )


class WholeChecks(FeatureChecks, AskingChecks):
    """The checks that compare streams with whole replies."""

    @check(
        "wholes.chat",
        tier=Tier.live,
        capability="chat_completion",
        mend="yield every piece once and in order, unchanged, with the stop_reason of the whole reply",
    )
    async def test_wholes_chat(self, subject: Subject) -> None:
        """a greedy chat says the same whole and streamed: text and stop_reason, whether it is cut or ends"""
        async with _streaming(subject).shared() as running:
            for question, params in ((COUNT, LONG), (QUESTION, _ENDS)):
                await self._same("a chat", running, self._chat, question, sampling_params=params)

    @check(
        "wholes.completion",
        tier=Tier.live,
        capability="completion",
        mend="yield every piece once and in order, unchanged, with the stop_reason of the whole reply",
    )
    async def test_wholes_completion(self, subject: Subject) -> None:
        """a greedy text completion says the same whole and streamed: text and stop_reason"""
        async with _streaming(subject).shared() as running:
            await self._same("a text completion", running, self._complete)

    @check(
        "wholes.tools",
        tier=Tier.live,
        capability="tools",
        mend="assemble the pieces of each call, and yield the raw text of its arguments while it is in progress",
    )
    async def test_wholes_tools(self, subject: Subject) -> None:
        """a tool call is the same whole and streamed, and the text in progress is its arguments as JSON"""
        async with _streaming(subject).shared() as running:
            pieces = await self._same("a tool call", running, self._weather)
        deltas = [piece.event.delta for piece in pieces if isinstance(piece.event.delta, ToolCallDelta)]
        kinds = ToolCallParseStatus
        raw = "".join(str(delta.content) for delta in deltas if delta.parse_status is kinds.in_progress)
        calls = [delta.content for delta in deltas if delta.parse_status is kinds.success]
        if len(calls) == 1 and raw and isinstance(calls[0], ToolCall):
            _check_raw(raw, calls[0])

    @check(
        "wholes.form",
        tier=Tier.live,
        capability="chat_completion",
        mend="yield every chunk once and in order, with the finish_reason and the usage of the whole reply",
    )
    async def test_wholes_form(self, subject: Subject) -> None:
        """a greedy chat in OpenAI's form says the same whole and streamed, and what the native call says"""
        async with _streaming(subject).shared() as running:
            asked: list[tuple[str, Callable[..., Awaitable[Any]]]] = []
            if hasattr(running.provider, "openai_chat"):
                asked.append(("openai_chat", self._asked))
            if hasattr(running.provider, "forward_openai"):
                asked.append(("forward_openai", self._forwarded_greedily))
            if not asked:
                raise NotApplicable("the provider takes no requests in OpenAI's form")
            for name, ask in asked:
                for attempt in range(_TRIES):
                    native_said = said(await self.known(running, self._chat, again=attempt > 0))
                    whole, pieces = await self._both(running, ask, again=attempt > 0)
                    whole, streamed = await _form_said(whole), await _form_said(pieces)
                    if whole == streamed and whole[0] == native_said.text:
                        break
                    if attempt == _TRIES - 1:
                        texts = {"whole": whole, "streamed": streamed, "native": native_said.text}
                        raise CheckFailure(f"{name}: {texts}")

    async def _forwarded_greedily(self, running: Running, **more: Any) -> Any:
        return await self._forwarded(running, temperature=0.0, **more)

    async def _same(
        self, what: str, running: Running, make: Callable[..., Awaitable[Any]], *given: Any, **more: Any
    ) -> Any:
        """The pieces of the stream. Raises CheckFailure if they never say what the whole reply says.

        It is tried again, because few backends compute the same twice in all cases.
        """
        difference = ""
        for attempt in range(_TRIES):
            whole, pieces = await self._both(running, make, *given, again=attempt > 0, **more)
            difference = said(whole).difference(said(pieces))
            if not difference:
                return pieces
        raise CheckFailure(f"{what}: {difference}", wanted="a stream that says what the whole reply says")

    async def _both(
        self, running: Running, make: Callable[..., Awaitable[Any]], *given: Any, again: bool, **more: Any
    ) -> tuple[Any, Any]:
        """The whole reply, and the pieces of the stream. again: make the calls, even if another check has made them."""
        ask = partial(self.known, running, make, *given, again=again, **more)
        return await ask(), await ask(stream=True)


def _streaming(subject: Subject) -> Subject:
    if not subject.declares("streaming"):
        raise NotApplicable("the provider declares no `streaming`")
    return subject


def _check_raw(raw: str, call: ToolCall) -> None:
    try:
        found = json.loads(raw)
    except ValueError:
        found = None
    if found != call.arguments:
        raise CheckFailure(f"in progress {raw!r}, at success {call.arguments}", wanted="the JSON of the arguments")


async def _form_said(answer: Any) -> tuple[str, Any]:
    """(text, finish_reason) of a whole or streamed answer in OpenAI's form, as a mapping or as bytes."""
    result = await read(answer)
    if isinstance(result, bytes):
        result = json.loads(result)
    if isinstance(result, Mapping):
        choice = result["choices"][0]
        return str(choice["message"].get("content") or ""), choice.get("finish_reason")
    chunks = [piece for piece in result if isinstance(piece, Mapping)]
    if not chunks:
        chunks = [json.loads(data) async for data in iter_data(_blocks(result)) if data != b"[DONE]"]
    choices = [choice for chunk in chunks for choice in chunk.get("choices") or ()]
    text = "".join(str((choice.get("delta") or {}).get("content") or "") for choice in choices)
    reasons = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
    return text, reasons[-1] if reasons else None


async def _blocks(result: list[bytes]) -> Any:
    for block in result:
        yield block
