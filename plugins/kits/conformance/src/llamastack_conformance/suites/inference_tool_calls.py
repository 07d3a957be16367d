"""Checks of what a provider makes of the backend's tool calls that are several at once, or cannot be read."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from llamastack.api.common import ToolCall
from llamastack.api.inference import ToolCallDelta, ToolCallParseStatus
from llamastack.provider.errors import LlamaStackError
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.replaying import changed_events, instead_of_the_last
from llamastack_conformance.running import Running
from llamastack_conformance.suites.inference_calls import read
from llamastack_conformance.suites.inference_features import STREAMED_CALL, TOOL_CALL, FeatureChecks
from llamastack_conformance.suites.inference_texts import answered


class ToolCallChecks(FeatureChecks):
    """The checks of tool calls that a model rarely makes: the backend's answer is changed."""

    @check(
        "tools.several-streamed",
        tier=Tier.live,
        capability="tools",
        mend="keep the pieces of each tool call apart by their index, and yield a success for each call",
    )
    async def test_tools_several_streamed(self, subject: Subject) -> None:
        """a stream in which the pieces of two tool calls alternate has both, each with its own id and arguments"""
        if not subject.declares("streaming"):
            raise NotApplicable("the provider declares no `streaming`")
        async with subject.shared(tapped=True) as running:
            alone = _whole_calls(await self._changed(running, _unchanged, stream=True))
            both = _whole_calls(await self._changed(running, _doubled, stream=True))
        if len(alone) != 1:
            raise NotApplicable(f"the backend's stream has {len(alone)} tool calls")
        found = [(call.tool_name, call.arguments) for call in both]
        if found != [(alone[0].tool_name, alone[0].arguments)] * 2 or both[0].call_id == both[1].call_id:
            raise CheckFailure(f"{both}", wanted=f"two calls with two ids, each with {alone[0].arguments}")

    @check(
        "tools.bad-arguments",
        tier=Tier.live,
        capability="tools",
        mend="raise BackendError for arguments that are no JSON object; never call a tool with others",
    )
    async def test_tools_bad_arguments(self, subject: Subject) -> None:
        """arguments of a tool call that break off are an error, or no call, whole and streamed"""
        async with subject.shared(tapped=True) as running:
            for stream in (False, True) if subject.declares("streaming") else (False,):
                try:
                    result = await self._changed(running, _cut_off, stream=stream)
                except LlamaStackError:
                    continue
                calls = _whole_calls(result) if stream else result.completion_message.tool_calls
                if calls:
                    raise CheckFailure(f"{calls}, whole or streamed, of arguments without their end", wanted="an error")

    async def _changed(self, running: Running, change: Callable[[list[Any]], bool], *, stream: bool) -> Any:
        """A reply with a tool call, made of the backend's answer after `change`."""
        more: dict[str, Any] = {"stream": True} if stream else {}

        async def ask() -> Any:
            return await read(await self._weather(running, **more))

        _, answer = await answered(running, STREAMED_CALL if stream else TOOL_CALL, ask)
        changed = changed_events(answer, change)
        if changed is None:
            raise NotApplicable("the backend's answer has no list `tool_calls` with arguments as text")
        running.tap.disturb(inject=instead_of_the_last(running.tap, changed))
        return await ask()


def _whole_calls(pieces: list[Any]) -> list[ToolCall]:
    deltas = [piece.event.delta for piece in pieces if isinstance(piece.event.delta, ToolCallDelta)]
    done = [delta.content for delta in deltas if delta.parse_status is ToolCallParseStatus.success]
    return [content for content in done if isinstance(content, ToolCall)]


def _unchanged(bodies: list[Any]) -> bool:
    return any(_call_lists(bodies))


def _doubled(bodies: list[Any]) -> bool:
    """After each piece of a call comes the same piece of another one."""
    lists = list(_call_lists(bodies))
    for calls in lists:
        for call in [call for call in calls if isinstance(call.get("index"), int)]:
            other = copy.deepcopy(call)
            other["index"] += 1
            if other.get("id"):
                other["id"] += "-two"
            calls.append(other)
    return bool(lists) and all(isinstance(call.get("index"), int) for calls in lists for call in calls)


def _cut_off(bodies: list[Any]) -> bool:
    """The second half of the arguments is missing."""
    functions = [call.get("function") for calls in _call_lists(bodies) for call in calls]
    parts = [f for f in functions if isinstance(f, dict) and isinstance(f.get("arguments"), str) and f["arguments"]]
    left = sum(len(part["arguments"]) for part in parts) // 2
    for part in parts:
        part["arguments"] = part["arguments"][:left]
        left -= len(part["arguments"])
    return bool(parts)


def _call_lists(value: Any) -> Iterator[list[dict[str, Any]]]:
    if isinstance(value, dict):
        calls = value.get("tool_calls")
        if isinstance(calls, list) and calls and all(isinstance(call, dict) for call in calls):
            yield calls
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _call_lists(inner)
