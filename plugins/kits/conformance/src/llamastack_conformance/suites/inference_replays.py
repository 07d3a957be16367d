"""Checks with answers that a backend has given, in which the suite changes a text or adds a tool call."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import anyio

from llamastack.api.common import ToolCall, UserMessage
from llamastack.api.inference import LogProbConfig
from llamastack_adapters.chat_request import ChatRequest
from llamastack_conformance.backend_tap import Request
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.gate import Gate
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.received import Received
from llamastack_conformance.replaying import body_of, head_of, instead_of_the_last, reframed, target_of
from llamastack_conformance.running import Running
from llamastack_conformance.suites.inference_calls import BRIEF, text_of_reply
from llamastack_conformance.suites.inference_features import TOOL_CALL, FeatureChecks
from llamastack_conformance.suites.inference_kinds import Kind, KindChecks
from llamastack_conformance.suites.inference_texts import LONG_TEXT, SPACES, answered, same_text, texts_of

_TEXT = 'ä🦙 e\u0301 שלום\n\n  two  spaces\tand <b>&amp;</b> \\n "quotes" {"a": 1} `code` ### end.'
_TOP = 3
_AT_ONCE = 8
_MEET_WITHIN_S = 1.0
_NUMBER = re.compile(rb"qzown(\d{3})")


class ReplayChecks(FeatureChecks, KindChecks):
    """The checks of what a provider makes of an answer."""

    @check(
        "wholes.unchanged",
        tier=Tier.live,
        mend="return the text as the backend sent it: no trimming, no normalisation, no other encoding, nothing cut",
    )
    async def test_wholes_unchanged(self, subject: Subject) -> None:
        """the text of a whole reply is exactly what the backend sent: any script, line breaks, spaces at its ends and
        within, markup, and 20,000 characters
        """
        if not subject.declares("chat_completion") and not subject.declares("completion"):
            raise NotApplicable("the provider makes no texts")
        async with subject.shared(tapped=True) as running:
            for kind in await self.kinds(running):
                if kind.streamed or not kind.is_native or kind.name == "embeddings":
                    continue
                template = await _template(running, kind)
                if template is None:
                    raise NotApplicable("the backend's answers do not hold the text as JSON")
                for other in (_TEXT, SPACES, LONG_TEXT):
                    changed = reframed(template.answer, _exchanged(template.text, other))
                    running.tap.disturb(inject=instead_of_the_last(running.tap, changed))
                    same_text(kind.name, text_of_reply(await kind.make("Say qzplain.")), other)

    @check(
        "tools.several",
        tier=Tier.live,
        capability="tools",
        mend="return every tool call of a reply, in order, each with its own id and arguments",
    )
    async def test_tools_several(self, subject: Subject) -> None:
        """a reply with two tool calls has both, in order, each with its own id and its own arguments"""
        async with subject.shared(tapped=True) as running:
            reply, answer = await answered(running, TOOL_CALL, partial(self._weather, running))
            first = reply.completion_message.tool_calls[0]
            city = str(first.arguments.get("city"))
            try:
                body = json.loads(body_of(head_of(answer), answer.partition(b"\r\n\r\n")[2]))
            except ValueError:
                raise NotApplicable("the backend's answers are no JSON") from None
            if not _repeat(body, str(first.tool_name), first.call_id, city):
                raise NotApplicable("no list of tool calls is in the backend's answer")
            running.tap.disturb(
                inject=instead_of_the_last(running.tap, reframed(answer, lambda _: json.dumps(body).encode()))
            )
            calls = (await self._weather(running)).completion_message.tool_calls
        found = [(call.arguments.get("city"), call.tool_name) for call in calls if isinstance(call, ToolCall)]
        if found != [(city, "weather"), (f"{city} two", "weather")] or calls[0].call_id == calls[1].call_id:
            raise CheckFailure(f"{calls}", wanted=f"two calls of `weather`: for {city!r} and for '{city} two'")

    @check(
        "received.logprobs",
        tier=Tier.live,
        capability="logprobs",
        mend="send `top_k` as the number of likeliest tokens, in every way",
    )
    async def test_received_logprobs(self, subject: Subject) -> None:
        """the backend is asked for as many likely tokens as the call asks for, in every way"""
        async with subject.shared(tapped=True) as running:
            if not subject.declares("chat_completion"):
                raise NotApplicable("the provider declares no `chat_completion`")
            model = await self._model(running)
            async for way, plain in self.replaying_ways(running):
                request = ChatRequest(
                    model, [UserMessage(content="Say qzlog.")], BRIEF, logprobs=LogProbConfig(top_k=_TOP)
                )
                for sent in (await self.sent(running, way, request, "qzlog"))[-1:]:
                    if not set(sent.paths_of(_TOP)) - {path for path, _ in plain.leaves}:
                        raise CheckFailure(f"{way.name}: it is not asked for {_TOP} tokens: {_new(sent, plain)}")

    @check(
        "stress.own-answers",
        tier=Tier.stress,
        mend="keep what belongs to a call in local variables, and keep no answer for the next call",
    )
    async def test_stress_own_answers(self, subject: Subject) -> None:
        """of many concurrent calls each gets the answer to its own text, whole and streamed, and so does a second one
        with the same text
        """
        async with subject.shared(tapped=True) as running:
            templates = [found for kind in await self.kinds(running) if (found := await _template(running, kind))]
            if not templates:
                raise NotApplicable("the backend's answers do not hold the texts as JSON")
            await _each_its_own(running, templates)


class _Template(NamedTuple):
    """A kind of call, an answer of the backend to it, and the text that the answer holds.

    target: method and path of the call's last request, which gets the answer.
    """

    kind: Kind
    answer: bytes
    text: str
    target: bytes


async def _template(running: Running, kind: Kind) -> _Template | None:
    """None if the answer to such a call is no text, or holds none of the reply's texts as JSON."""
    if kind.name == "embeddings":
        return None
    try:
        result, answer = await answered(running, kind.known_as, partial(kind.make, "Say qzplain."))
    except NotApplicable:
        return None
    texts = sorted({text for text in texts_of(result) if len(text) > 2}, key=len, reverse=True)
    held = next((text for text in texts if any(form in answer for form in _forms(text))), None)
    [*_, last] = (request for request in running.tap.requests if request.body)
    return None if held is None else _Template(kind, answer, held, target_of(last))


async def _each_its_own(running: Running, templates: Sequence[_Template]) -> None:
    """Make calls of all kinds at once, whose answers hold the text of the request."""
    calls = [template for template in templates for _ in range(_AT_ONCE)]

    def of_its_own(request: Request) -> bytes | None:
        number = _NUMBER.search(request.body)
        if number is None:
            return None
        template, said = calls[int(number[1])], f" {number[0].decode()} {len(running.tap.requests)}"
        if target_of(request) != template.target:  # such as one that makes the prompt
            return None
        return reframed(template.answer, _exchanged(template.text, said))

    results: list[list[str]] = [[] for _ in calls]

    async def ask(number: int) -> None:
        results[number].append("".join(texts_of(await calls[number].kind.make(f"Say qzown{number:03d}."))))

    for _ in range(2):
        running.tap.disturb(inject=of_its_own, gate=Gate(_AT_ONCE, _MEET_WITHIN_S))
        async with anyio.create_task_group() as group:
            for number in range(len(calls)):
                group.start_soon(ask, number)
    for number, said in enumerate(results):
        if any(f"qzown{number:03d}" not in one for one in said):
            raise CheckFailure(f"{calls[number].kind.name}: the call with qzown{number:03d} got {said}")
        if said[0] == said[1]:
            name = calls[number].kind.name
            raise CheckFailure(f"{name}: a second call with the same text got the answer to the first")


def _new(sent: Received, plain: Received) -> str:
    known = {path for path, _ in plain.leaves}
    return ", ".join(f"{path}={value}" for path, value in sent.leaves if path not in known) or "nothing of it is sent"


def _forms(text: str) -> tuple[bytes, bytes]:
    """A text as JSON."""
    return json.dumps(text).encode(), json.dumps(text, ensure_ascii=False).encode()


def _exchanged(text: str, other: str) -> Callable[[bytes], bytes]:
    forms = _forms(text)
    new = json.dumps(other, ensure_ascii=False).encode()

    def change(body: bytes) -> bytes:
        for form in dict.fromkeys(forms):
            body = body.replace(form, new)
        return body

    return change


def _repeat(body: Any, tool: str, call_id: str, city: str) -> bool:
    """Add a second call, for another city, to the innermost list that holds the call of `tool`."""
    lists = [found for found in _lists(body) if any(tool in json.dumps(item) for item in found)]
    if not lists:
        return False
    calls = min(lists, key=lambda found: len(json.dumps(found)))
    item = next(item for item in calls if tool in json.dumps(item))
    calls.append(_renamed(copy.deepcopy(item), {call_id: f"{call_id}2"}, city))
    return True


def _lists(value: Any) -> Iterator[list[Any]]:
    if isinstance(value, list):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _lists(inner)


def _renamed(value: Any, names: dict[str, str], city: str) -> Any:
    if isinstance(value, dict):
        return {name: _renamed(inner, names, city) for name, inner in value.items()}
    if isinstance(value, list):
        return [_renamed(inner, names, city) for inner in value]
    if not isinstance(value, str):
        return value
    quoted = json.dumps(city)
    if quoted in value:  # arguments as text
        return value.replace(quoted, json.dumps(f"{city} two"))
    return f"{city} two" if value == city else names.get(value, value)
