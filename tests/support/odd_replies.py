"""Replies of backends that differ a little from OpenAI's, and what is to be told of each, on every path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backends.scripted_http import End

DONE = "[DONE]"
Call = tuple[str, dict[str, Any]]
"""Name and arguments."""


@dataclass(frozen=True)
class OddReply:
    """A reply, whole and in events, either of which may be missing; and what is told of it.

    stop: the native stop reason. finish: OpenAI's word for it. failed: name and text of calls that cannot be read.
    error: a part of the message of the error that it ends with. shown: the calls whose text is shown on /v1; those of
    `failed` unless they are left out. usage: tokens of the prompt and of the reply. ids: of the calls, where they are
    the backend's.
    """

    name: str
    whole: Mapping[str, Any] | None = None
    events: Sequence[Any] = ()
    text: str = ""
    calls: Sequence[Call] = ()
    failed: Sequence[tuple[str, str]] = ()
    stop: str = "end_of_turn"
    finish: str = "stop"
    refusal: str | None = None
    error: str | None = None
    usage: tuple[int, int] | None = None
    left_out: bool = False
    ids: Sequence[str] | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)


def whole(finish: Any, usage: Mapping[str, int] | None = None, **message: Any) -> dict[str, Any]:
    full = {"role": "assistant", "content": None, **message}
    reply = {"id": "c", "object": "chat.completion", "created": 0, "model": "m"}
    return {**reply, "choices": [{"index": 0, "message": full, "finish_reason": finish}], "usage": usage}


def event(finish: Any = None, **delta: Any) -> dict[str, Any]:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m"}
    return {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def fragment(index: Any, call_id: Any, name: Any, arguments: Any, finish: Any = None) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return event(finish, tool_calls=[{"index": index, "id": call_id, "type": "function", "function": function}])


def call(call_id: Any, name: Any, arguments: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


ROLE = event(role="assistant", content="")
F: Call = ("f", {"x": 1})
G: Call = ("g", {"y": 2})
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
CALLED = {"stop": "end_of_message", "finish": "tool_calls"}
CUT: Sequence[Any] = (End.CLOSE,)


def ended(word: Any, **more: Any) -> OddReply:
    """A text that ends with a word."""
    text = "" if "error" in more else "Hello"
    events = (ROLE, event(content="Hel"), event(content="lo"), event(word), DONE)
    return OddReply(f"finish_reason {word!r}", whole(word, content="Hello"), events, **{"text": text, **more})


LENGTH = {"stop": "out_of_tokens", "finish": "length"}
FILTERED = {"finish": "content_filter"}

FINISH_REASONS = (
    *(
        ended(word)
        for word in ("stop", "end_turn", "eos", "eos_token", "stop_sequence", "COMPLETE", "because", {"type": "stop"})
    ),
    *(
        ended(word, **LENGTH)
        for word in ("length", "max_tokens", "MAX_TOKENS", "max_output_tokens", "model_length", "token_limit")
    ),
    *(ended(word, **FILTERED) for word in ("content_filter", "content_filtered", "SAFETY", "guardrail_intervened")),
    *(ended(word, error=f"finish_reason '{word}'") for word in ("abort", "error", "cancelled", "ERROR")),
    ended("tool_calls", stop="end_of_message"),
    ended(None),
    ended(""),
)

ENDS = (
    OddReply(
        "an empty reason until the last",
        events=(event("", content="Hel"), event("", content="lo"), event("stop"), DONE),
        text="Hello",
    ),
    OddReply("an empty reason, and cut", events=(event("", content="Hel"), *CUT), error=""),
    OddReply("no reason, and cut", events=(event(content="Hel"), *CUT), error=""),
    OddReply("no reason, and nothing said", whole(None), (ROLE, DONE), error=""),
    OddReply(
        "no reason, and a complete call",
        whole(None, tool_calls=[call("a", "f", '{"x":1}')]),
        (fragment(0, "a", "f", '{"x":'), fragment(0, None, None, "1}"), DONE),
        calls=[F],
        **CALLED,
    ),
    OddReply(
        "no reason, and a call that is cut",
        events=(fragment(0, "a", "f", '{"x":'), *CUT),
        error="",
    ),
    OddReply(
        "no reason, and half a call",
        events=(fragment(0, "a", "f", '{"x":'), DONE),
        error="before the reply was complete",
    ),
    OddReply(
        "a reason, and no [DONE]",
        events=(event(content="Hello"), event("stop")),
        text="Hello",
    ),
    OddReply(
        "no content, as all was filtered out",
        {"choices": [{"index": 0, "finish_reason": "content_filter"}]},
        (event("content_filter"), DONE),
        **FILTERED,
    ),
    OddReply(
        "usage after the end",
        whole("stop", USAGE, content="Hello"),
        (event(content="Hello"), event("stop"), {"choices": [], "usage": USAGE}, DONE),
        text="Hello",
        usage=(5, 2),
    ),
    OddReply(
        "usage in every event",
        events=({**event(content="Hello"), "usage": USAGE}, {**event("stop"), "usage": USAGE}, DONE),
        text="Hello",
        usage=(5, 2),
    ),
)

TEXTS = (
    OddReply(
        "a pair in two events",
        events=(event(content="a\ud83d"), event(content="\ude00b"), event("stop"), DONE),
        text="a😀b",
    ),
    OddReply(
        "half a pair",
        whole("stop", content="a\ud83db"),
        (event(content="a\ud83d"), event(content="b"), event("stop"), DONE),
        text="a\ufffdb",
    ),
    OddReply(
        "half a pair at the end",
        whole("stop", content="a\ud83d"),
        (event(content="a\ud83d"), event("stop"), DONE),
        text="a\ufffd",
    ),
    OddReply(
        "a pair in two events of arguments",
        events=(fragment(0, "a", "f", '{"x":"\ud83d'), fragment(0, None, None, '\ude00"}'), event("tool_calls"), DONE),
        calls=[("f", {"x": "😀"})],
        **CALLED,
    ),
    OddReply(
        "content in parts",
        whole("stop", content=[{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]),
        (event(content=[{"type": "text", "text": "Hello"}]), event("stop"), DONE),
        text="Hello",
    ),
    OddReply(
        "events that say nothing",
        events=({}, None, "", {"choices": [], "id": ""}, event(content="Hello"), None, event("stop"), DONE),
        text="Hello",
    ),
    OddReply(
        "a choice without a delta, and one whose delta is null",
        events=(
            {"choices": [{"index": 0, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": None, "finish_reason": None}]},
            event(content="Hello"),
            event("stop"),
            DONE,
        ),
        text="Hello",
    ),
    OddReply(
        "a whole reply in an event",
        events=(whole("stop", USAGE, content="Hello"), DONE),
        text="Hello",
        usage=(5, 2),
    ),
    OddReply(
        "a whole call in an event",
        events=(whole("tool_calls", tool_calls=[call("a", "f", '{"x":1}')]), DONE),
        calls=[F],
        ids=["a"],
        **CALLED,
    ),
    OddReply(
        "the whole reply once more at the end",
        events=(event(content="Hel"), event(content="lo"), whole("stop", content="Hello"), DONE),
        text="Hello",
    ),
    OddReply(
        "a text where a message is",
        {"choices": [{"index": 0, "text": "Hello", "finish_reason": "stop"}]},
        ({"choices": [{"index": 0, "text": "Hello", "finish_reason": "stop"}]}, DONE),
        text="Hello",
    ),
    OddReply("nothing but the end", {"choices": []}, (DONE,), error=""),
    OddReply(
        "a refusal",
        whole("stop", refusal="I cannot."),
        (
            event(role="assistant", content=None, refusal=""),
            event(refusal="I can"),
            event(refusal="not."),
            event("stop"),
            DONE,
        ),
        text="I cannot.",
        refusal="I cannot.",
    ),
    OddReply(
        "a refusal where JSON was asked for",
        whole("stop", refusal="I cannot."),
        (event(refusal="I cannot."), event("stop"), DONE),
        text="I cannot.",
        refusal="I cannot.",
        asked={"response_format": True},
    ),
    OddReply(
        "JSON that was filtered out",
        whole("content_filter", content='{"a'),
        (event(content='{"a'), event("content_filter"), DONE),
        text='{"a',
        asked={"response_format": True},
        **FILTERED,
    ),
)

TOOL_CALLS = (
    OddReply(
        "two calls of one index",
        whole("tool_calls", tool_calls=[call("a", "f", '{"x":1}'), call("b", "g", '{"y":2}')]),
        (
            fragment(0, "a", "f", ""),
            fragment(0, "", None, '{"x":'),
            fragment(0, "", None, "1}"),
            fragment(0, "b", "g", ""),
            fragment(0, "", None, '{"y":'),
            fragment(0, "", None, "2}"),
            event("tool_calls"),
            DONE,
        ),
        calls=[F, G],
        ids=["a", "b"],
        **CALLED,
    ),
    OddReply(
        "an id in the second fragment",
        events=(fragment(0, None, "f", ""), fragment(0, "a", None, '{"x":1}'), event("tool_calls"), DONE),
        calls=[F],
        ids=["a"],
        **CALLED,
    ),
    OddReply(
        "calls whose arguments cannot be told apart",
        events=(
            fragment(0, "a", "f", ""),
            fragment(0, "b", "g", ""),
            fragment(0, "", None, '{"x":1}'),
            event("tool_calls"),
            DONE,
        ),
        failed=[("f", ""), ("g", '{"x":1}')],
        error="cannot be told apart",
        **CALLED,
    ),
    OddReply(
        "a name that may be in two pieces",
        events=(fragment(0, "a", "f", ""), fragment(0, None, "g", '{"y":2}'), event("tool_calls"), DONE),
        failed=[("f", ""), ("g", '{"y":2}')],
        error="cannot be told apart",
        **CALLED,
    ),
    OddReply(
        "arguments as an object",
        whole("tool_calls", tool_calls=[call("a", "f", {"x": 1})]),
        (fragment(0, "a", "f", {"x": 1}), event("tool_calls"), DONE),
        calls=[F],
        ids=["a"],
        **CALLED,
    ),
    OddReply(
        "arguments that are null",
        whole("tool_calls", tool_calls=[call("a", "f", None)]),
        (fragment(0, "a", "f", None), event("tool_calls"), DONE),
        calls=[("f", {})],
        ids=["a"],
        **CALLED,
    ),
    OddReply(
        "arguments that are no JSON",
        whole("tool_calls", tool_calls=[call("a", "f", "{oops"), call("b", "g", '{"y":2}')]),
        (
            fragment(0, "a", "f", "{oo"),
            fragment(0, None, None, "ps"),
            fragment(1, "b", "g", '{"y":2}'),
            event("tool_calls"),
            DONE,
        ),
        calls=[G],
        failed=[("f", "{oops")],
        **CALLED,
    ),
    OddReply(
        "arguments that are a list",
        whole("tool_calls", tool_calls=[call("a", "f", "[1]")]),
        (fragment(0, "a", "f", "[1]"), event("tool_calls"), DONE),
        failed=[("f", "[1]")],
        **CALLED,
    ),
    OddReply(
        "calls without ids",
        whole("tool_calls", tool_calls=[call(None, "f", '{"x":1}'), call("", "g", '{"y":2}')]),
        (fragment(0, None, "f", '{"x":1}'), fragment(1, "", "g", '{"y":2}'), event("tool_calls"), DONE),
        calls=[F, G],
        **CALLED,
    ),
    OddReply(
        "calls of one id",
        whole("tool_calls", tool_calls=[call("a", "f", '{"x":1}'), call("a", "g", '{"y":2}')]),
        (fragment(0, "a", "f", '{"x":1}'), fragment(1, "a", "g", '{"y":2}'), event("tool_calls"), DONE),
        calls=[F, G],
        **CALLED,
    ),
    OddReply(
        "a call that ran out of tokens",
        whole("length", tool_calls=[call("a", "f", '{"x":1}'), call("b", "g", '{"y":')]),
        (fragment(0, "a", "f", '{"x":1}'), fragment(1, "b", "g", '{"y":'), event("length"), DONE),
        calls=[F],
        failed=[("g", '{"y":')],
        left_out=True,
        **LENGTH,
    ),
    OddReply(
        "a call that ran out of tokens before its arguments",
        whole("max_tokens", tool_calls=[call("a", "f", "")]),
        (fragment(0, "a", "f", ""), event("max_tokens"), DONE),
        failed=[("f", "")],
        left_out=True,
        **LENGTH,
    ),
    OddReply(
        "a call that was filtered",
        whole("content_filter", tool_calls=[call("a", "f", '{"x":')]),
        (fragment(0, "a", "f", '{"x":'), event("content_filter"), DONE),
        failed=[("f", '{"x":')],
        left_out=True,
        stop="end_of_message",
        finish="content_filter",
    ),
    OddReply(
        "a call in a reply that ends with stop",
        whole("stop", tool_calls=[call("a", "f", '{"x":1}')]),
        (fragment(0, "a", "f", '{"x":1}'), event("stop"), DONE),
        calls=[F],
        **CALLED,
    ),
    OddReply(
        "the reason in the same event as the call",
        events=(fragment(0, "a", "f", '{"x":1}', "tool_calls"), DONE),
        calls=[F],
        **CALLED,
    ),
    OddReply(
        "the older function_call",
        whole("function_call", function_call={"name": "f", "arguments": '{"x":1}'}),
        (
            event(function_call={"name": "f", "arguments": '{"x":'}),
            event(function_call={"arguments": "1}"}),
            event("function_call"),
            DONE,
        ),
        calls=[F],
        **CALLED,
    ),
)

ODD_REPLIES = (*FINISH_REASONS, *ENDS, *TEXTS, *TOOL_CALLS)
