"""Whole tool calls in the OpenAI dialect -> native ones, or failures with the text that cannot be parsed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import pydantic_core

from llamastack.api.common import ToolCall
from llamastack.api.inference import ToolCallDelta, ToolCallParseStatus
from llamastack.http.lone_surrogates import whole_text, whole_texts


def parse_arguments(text: str) -> dict[str, Any] | None:
    """A tool call's arguments; None when the text is not a JSON object. An empty text and `null` are `{}`."""
    if not text.strip():
        return {}
    try:
        arguments = pydantic_core.from_json(text, allow_inf_nan=False)
    except ValueError:
        if "\\u" not in text:
            return None
        try:  # a text with half of a surrogate pair
            arguments = whole_texts(json.loads(text, parse_constant=_refuse_constant))
        except (ValueError, RecursionError):
            return None
    if arguments is None:
        return {}
    return arguments if isinstance(arguments, dict) else None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"JSON has no {name}")


@dataclass(frozen=True, slots=True)
class Fragment:
    """A call, or a piece of one, as a backend sends it. Missing texts are empty."""

    index: int | None
    call_id: str
    name: str
    arguments: str

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Fragment:
        """Read `{"index", "id", "function": {"name", "arguments"}}`, or the same without `function`.

        Raises AttributeError for another form.
        """
        function = given.get("function")
        function = given if function is None else function
        index, call_id, name = given.get("index"), given.get("id"), function.get("name")
        if isinstance(index, str) and index.isdecimal() and len(index) < 10:
            index = int(index)
        return cls(
            index if isinstance(index, int) and not isinstance(index, bool) else None,
            "" if call_id is None else whole_text(str(call_id)),
            "" if name is None else whole_text(str(name)),
            _text_of(function.get("arguments")),
        )

    @property
    def says_something(self) -> bool:
        return bool(self.call_id or self.name or self.arguments)


def _text_of(arguments: Any) -> str:
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def fragments_of(holder: Mapping[str, Any]) -> list[Fragment]:
    """The calls in a message or a delta, including the older `function_call`.

    Raises TypeError or AttributeError for another form.
    """
    given, older = holder.get("tool_calls") or (), holder.get("function_call")
    if not given and not older:
        return []
    if isinstance(given, Mapping):  # some backends send a single call so
        given = (given,)
    if isinstance(given, str):
        raise TypeError("tool_calls that are a text")
    fragments = [Fragment.of(call) for call in given if call is not None]
    if isinstance(older, Mapping) and not fragments:
        fragments.append(Fragment.of(older))
    return [fragment for fragment in fragments if fragment.says_something]


class Finished(NamedTuple):
    """The calls of a whole reply.

    calls: the valid calls.
    deltas: these and the failures, in the order in which they began.
    """

    calls: list[ToolCall]
    deltas: list[ToolCallDelta]

    @property
    def failures(self) -> list[ToolCallDelta]:
        return [delta for delta in self.deltas if delta.parse_status is ToolCallParseStatus.failure]


class GivenCall(Protocol):
    """A call with everything that was sent for it."""

    @property
    def call_id(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def arguments(self) -> str: ...


def whole_calls(message: Mapping[str, Any], *, regular: bool) -> Finished:
    """The calls of a whole reply.

    regular: whether the model itself ended the reply, so that a call without arguments has none.
    """
    return finished_calls((call, regular) for call in fragments_of(message))


def finished_calls(given: Iterable[tuple[GivenCall, bool | None]]) -> Finished:
    """Native calls, each with a unique id.

    given: each call, and whether it takes no arguments if none were sent; None if its arguments are unknown.
    """
    calls: list[ToolCall] = []
    deltas: list[ToolCallDelta] = []
    used: set[str] = set()
    for call, may_be_empty in given:
        text = whole_text(call.arguments)
        call_id = call.call_id if call.call_id and call.call_id not in used else f"call_{uuid.uuid4().hex}"
        used.add(call_id)
        arguments = None
        if call.name and (may_be_empty or (may_be_empty is not None and text.strip())):
            arguments = parse_arguments(text)
        if arguments is None:
            name = call.name or None
            failure = ToolCallParseStatus.failure
            deltas.append(ToolCallDelta(content=text, parse_status=failure, call_id=call_id, tool_name=name))
        else:
            calls.append(ToolCall(call_id=call_id, tool_name=call.name, arguments=arguments))
            deltas.append(ToolCallDelta(content=calls[-1], parse_status=ToolCallParseStatus.success))
    return Finished(calls, deltas)
