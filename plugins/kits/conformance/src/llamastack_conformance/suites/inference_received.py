"""Checks of what reaches the backend: all messages and parameters of a call, unchanged, and nothing of another call."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from llamastack.api.common import (
    CompletionMessage,
    Message,
    SamplingParams,
    SamplingStrategy,
    StopReason,
    SystemMessage,
    UserMessage,
)
from llamastack.provider.errors import InvalidRequestError
from llamastack_adapters.chat_request import ChatRequest
from llamastack_conformance.checks import CheckFailure, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.received import Leaf, Received
from llamastack_conformance.running import Running
from llamastack_conformance.suites.inference_calls import BRIEF
from llamastack_conformance.suites.inference_ways import AskingChecks, Way

_STOPS = ["qzstopone", "qzstoptwo"]
# (parameter, all parameters of the call, the value that has to arrive, how backends name it)
SAMPLING: tuple[tuple[str, dict[str, Any], Leaf, str], ...] = (
    ("temperature", {"strategy": "top_p", "temperature": 0.7312, "top_p": 0.8731}, 0.7312, "temp"),
    ("top_p", {"strategy": "top_p", "temperature": 0.7312, "top_p": 0.8731}, 0.8731, r"top_?p|nucleus"),
    ("top_k", {"strategy": "top_k", "temperature": 0.6412, "top_k": 37}, 37, r"top_?k"),
    ("repetition_penalty", {"repetition_penalty": 1.1731}, 1.1731, "rep"),
    ("frequency_penalty", {"frequency_penalty": 0.3719}, 0.3719, "freq"),
    ("presence_penalty", {"presence_penalty": 0.2837}, 0.2837, "pres"),
    ("min_p", {"strategy": "top_p", "temperature": 0.7312, "min_p": 0.0731}, 0.0731, r"min_?p"),
    ("logit_bias", {"logit_bias": {"1734": -3.25}}, -3.25, "bias"),
    ("seed", {"strategy": "top_p", "temperature": 0.7312, "seed": 71623}, 71623, "seed"),
    ("max_tokens", {"max_tokens": 13}, 13, "max|predict|length|limit"),
    ("stop", {"stop": _STOPS}, _STOPS[0], "stop"),
    ("stop", {"stop": _STOPS}, _STOPS[1], "stop"),
)
_GREEDY_NAMES = (("temp", 0), (r"top_?k", 1), ("sample", False))


def conversation(tag: str) -> tuple[list[Message], list[str]]:
    """A conversation in which each part holds a word of its own, and these words in order, the system's first."""
    words = [f"qz{tag}{name}" for name in ("system", "first", "answer", "part", "other", "context")]
    system, first, answer, part, other, context = words
    messages: list[Message] = [
        SystemMessage(content=f"You are brief. {system}"),
        UserMessage(content=f"Name a city. {first}"),
        CompletionMessage(content=f"Paris {answer}", stop_reason=StopReason.end_of_turn),
        UserMessage(content=[f"And {part}", f"another? {other}"], context=f"Rome is a city. {context}"),
    ]
    return messages, words


class ReceivedChecks(AskingChecks):
    """The checks of what the backend receives in a chat."""

    @check(
        "received.messages",
        tier=Tier.live,
        capability="chat_completion",
        mend="send every message in its order and with its role, with the context and all parts of the last one",
    )
    async def test_received_messages(self, subject: Subject) -> None:
        """the backend receives all of a conversation, each part once, in order, and with its role, in every way"""
        async with subject.shared(tapped=True) as running:
            model = await self._model(running)
            async for way, _ in self.replaying_ways(running):
                messages, words = conversation("m")
                before = copy.deepcopy(messages)
                for sent in await self.sent(running, way, ChatRequest(model, messages, BRIEF), words[-1]):
                    _complete(way, sent, words)
                await self._interrupted(running, way)
                if messages != before:
                    raise CheckFailure(f"{way.name} changes the messages of its caller")

    async def _interrupted(self, running: Running, way: Way) -> None:
        """Instructions in the middle, two messages of one speaker, and parts in any message arrive, or are refused."""
        names = ("system", "rest", "first", "second", "third", "answer", "more", "later", "last")
        words = [f"qzi{name}" for name in names]
        system, rest, first, second, third, answer, more, later, last = words
        messages: list[Message] = [
            SystemMessage(content=[system, rest]),
            UserMessage(content=[first, second]),
            UserMessage(content=third),
            CompletionMessage(content=[answer, more], stop_reason=StopReason.end_of_turn),
            SystemMessage(content=later),
            UserMessage(content=last),
        ]
        try:
            found = await self.sent(running, way, ChatRequest(await self._model(running), messages, BRIEF), last)
        except InvalidRequestError:
            return
        for sent in found:
            counts = {word: sent.times(word) for word in words}
            if set(counts.values()) != {1}:
                raise CheckFailure(f"{way.name}: how often each message arrived: {counts}", wanted="every one once")

    @check(
        "received.sampling",
        tier=Tier.live,
        capability="chat_completion",
        mend="pass each sampling parameter under the backend's name, whole and streamed, or raise NotSupportedError",
    )
    async def test_received_sampling(self, subject: Subject) -> None:
        """the backend receives each sampling parameter with its value, and a greedy call is greedy there"""
        async with subject.shared(tapped=True) as running:
            model = await self._model(running)
            async for way, plain in self.replaying_ways(running):
                check_greedy(way.name, plain)
                for number, (name, given, value, pattern) in enumerate(SAMPLING):
                    word, params = f"qzs{number}", SamplingParams(**{"max_tokens": 2, **given})
                    request = ChatRequest(model, [UserMessage(content=f"Say {word}.")], params)
                    for sent in (await self.sent(running, way, request, word))[-1:]:
                        if not _in_other_terms(name, plain, sent):
                            check_has(way.name, sent, name, value, pattern)

    @check(
        "received.nothing-else",
        tier=Tier.live,
        capability="chat_completion",
        mend="keep what belongs to a call in local variables, and change no list or dict of the instance",
    )
    async def test_received_nothing_else(self, subject: Subject) -> None:
        """a plain chat sends the same after a chat with many messages and parameters as before it"""
        async with subject.shared(tapped=True) as running:
            model = await self._model(running)
            async for way, _ in self.replaying_ways(running):
                plain = [await self._plain(running, way, f"qznp{place}") for place in range(2)]
                messages, words = conversation("n")
                rich = SamplingParams(strategy=SamplingStrategy.top_p, temperature=0.7, max_tokens=3, stop=["qzend"])
                await self.sent(running, way, ChatRequest(model, messages, rich), words[-1])
                _same_leaves(way, plain, await self._plain(running, way, "qznp2"))

    async def _plain(self, running: Running, way: Way, word: str) -> list[tuple[str, Leaf]]:
        request = ChatRequest(await self._model(running), [UserMessage(content=f"Say {word}.")], BRIEF)
        return [
            (path, value.replace(word, "qz") if isinstance(value, str) else value)
            for sent in await self.sent(running, way, request, word)
            for path, value in sent.leaves
        ]


def _complete(way: Way, sent: Received, words: Sequence[str]) -> None:
    wrong = {word: sent.times(word) for word in words if sent.times(word) != 1}
    if wrong:
        raise CheckFailure(f"{way.name}: how often each part arrived: {wrong}", wanted="every part once")
    others = sorted(set(re.findall(r"qz\w+", sent.words)) - set(words))
    if others:
        raise CheckFailure(f"{way.name}: it holds words of other calls: {others}")
    # The instructions of the system may have a field of their own.
    places = [sent.place(word) for word in words[1:]]
    if any(later < earlier for earlier, later in pairwise(places)):
        order = sorted(words[1:], key=sent.place)
        raise CheckFailure(f"{way.name}: the order {order}", wanted=f"the order {list(words[1:])}")
    roles = [_role_of(sent, word) for word in words]
    if None not in roles[1:] and (roles[2] in (roles[1], *roles[3:]) or len({roles[1], *roles[3:]}) > 1):
        raise CheckFailure(f"{way.name}: the roles {roles} of {list(words)}", wanted="a role for each speaker")
    if roles[0] is not None and roles[0] == roles[2]:
        raise CheckFailure(f"{way.name}: the instructions have the role {roles[0]!r} of the model's answers")


def _role_of(sent: Received, word: str) -> str | None:
    """The role of the message that holds a text; None in a body without roles, such as one with a whole prompt."""
    path = next((path for path, value in sent.leaves if isinstance(value, str) and word in value), "")
    known = dict(sent.leaves)
    while path:
        path = path.rpartition(".")[0]
        role = known.get(f"{path}.role")
        if isinstance(role, str):
            return role
    return None


def check_has(where: str, sent: Received, name: str, value: Leaf, pattern: str) -> None:
    """Raise CheckFailure unless the value arrived under a name like `pattern`."""
    paths = sent.paths_of(value)
    if not paths:
        raise CheckFailure(f"{where}: {name} {value!r} did not reach the backend: {shown(sent)}")
    if not any(re.search(pattern, path, re.IGNORECASE) for path in paths):
        raise CheckFailure(f"{where}: {name} {value!r} reached the backend as {', '.join(paths)}")


def _in_other_terms(name: str, plain: Received, sent: Received) -> bool:
    """Whether a backend has the repetition penalty in terms of its own, such as a presence penalty of x - 2 (TGI)."""
    known = {path for path, _ in plain.leaves}
    return name == "repetition_penalty" and any(
        isinstance(value, int | float) and path not in known and path.endswith("penalty") for path, value in sent.leaves
    )


def check_greedy(where: str, sent: Received) -> None:
    """Raise CheckFailure unless the backend is asked for the likeliest tokens."""
    for path, value in sent.leaves:
        name = path.rpartition(".")[2]
        if any(re.search(pattern, name, re.IGNORECASE) and value == wanted for pattern, wanted in _GREEDY_NAMES):
            return
    raise CheckFailure(
        f"{where}: a greedy call is sent without temperature 0: {shown(sent)}",
        wanted="temperature 0, or the backend's other word for it",
    )


def shown(sent: Received) -> str:
    """The values of a request, for messages."""
    return ", ".join(f"{path}={value!r:.40}" for path, value in sent.leaves)[:400]


def _same_leaves(way: Way, plain: Sequence[Iterable[tuple[str, Leaf]]], after: Iterable[tuple[str, Leaf]]) -> None:
    """What differs between two equal calls, such as an id or a time, is left out."""
    first, second = (dict(leaves) for leaves in plain)
    steady = {path: value for path, value in first.items() if path in second and second[path] == value}
    varying = (first.keys() | second.keys()) - steady.keys()
    found = {path: value for path, value in after if path not in varying}
    if found != steady:
        changed = sorted(path for path in found.keys() | steady.keys() if found.get(path) != steady.get(path))
        shown = ", ".join(f"{path}: {steady.get(path)!r:.60}, then {found.get(path)!r:.60}" for path in changed[:5])
        raise CheckFailure(f"{way.name} sends something else after another call: {shown}")
