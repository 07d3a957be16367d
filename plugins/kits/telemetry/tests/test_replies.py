"""What replies say of themselves, in spans."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llamastack.api.common import CompletionMessage, StopReason
from llamastack.api.inference import (
    ChatCompletionResponse,
    ChatCompletionResponseEvent,
    ChatCompletionResponseEventType,
    ChatCompletionResponseStreamChunk,
    CompletionResponseStreamChunk,
)
from llamastack_telemetry.replies import attributes_of

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"finish_reason": "no"}'}}
CHOICE = {"index": 0, "message": {"role": "assistant", "tool_calls": [CALL]}, "finish_reason": "tool_calls"}
WHOLE: dict[str, Any] = {"id": "c-1", "object": "chat.completion", "model": "m-2024", "choices": [CHOICE]}
ALL = {
    "gen_ai.response.id": "c-1",
    "gen_ai.response.model": "m-2024",
    "gen_ai.response.finish_reasons": ["tool_calls"],
}
NATIVE = ChatCompletionResponse(completion_message=CompletionMessage(content="Hi", stop_reason=StopReason.end_of_turn))
ENDED = ChatCompletionResponseStreamChunk(
    event=ChatCompletionResponseEvent(
        event_type=ChatCompletionResponseEventType.complete, delta="", stop_reason=StopReason.out_of_tokens
    )
)
GOES_ON = CompletionResponseStreamChunk(delta="x")
CHUNK = b'data: {"id":"c-1","model":"m-2024","choices":[{"delta":{"content":"\\"finish_reason\\":\\"no\\""}}]}\n\n'
LAST = b'data: {"id":"c-1","model":"m-2024","choices":[{"delta":{},"finish_reason":"tool_calls"}]}\n\n'


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (json.dumps(WHOLE).encode(), ALL),
        (json.dumps({**WHOLE, "choices": [{"text": "x" * 9999}, CHOICE]}).encode(), ALL),
        (json.dumps({"choices": [CHOICE], "id": "c-1"}).encode(), {"gen_ai.response.finish_reasons": ["tool_calls"]}),
        (WHOLE, ALL),
        ((CHUNK, LAST, b"data: [DONE]\n\n"), ALL),
        ((CHUNK * 100, LAST), ALL),
        (({"id": "c-1", "choices": []}, WHOLE, {"choices": [], "usage": {}}), ALL),
        (NATIVE, {"gen_ai.response.finish_reasons": ["end_of_turn"]}),
        ((GOES_ON, ENDED), {"gen_ai.response.finish_reasons": ["out_of_tokens"]}),
        ((GOES_ON,), {}),
        ((), {}),
        (b"\xff{", {}),
        (b'{"data": [{"embedding": [1.0]}], "model": "v"}', {"gen_ai.response.model": "v"}),
        ({"choices": "odd", "id": 1}, {}),
        (object(), {}),
    ],
)
def test_what_a_reply_says(reply: object, expected: dict[str, object]) -> None:
    assert attributes_of(reply) == expected


def test_a_long_reply_is_searched_at_its_ends() -> None:
    head = b'{"id": "c-1", "model": "m-2024", "choices": [{"message": {"content": "' + b"x" * 20_000 + b'"}, '
    assert attributes_of(head + b'"finish_reason": "tool_calls"}]}') == ALL
    in_the_middle = head + b'"finish_reason": "tool_calls", "logprobs": "' + b"y" * 20_000 + b'"}]}'
    assert attributes_of(in_the_middle) == {name: ALL[name] for name in ("gen_ai.response.id", "gen_ai.response.model")}
