"""Replies of Converse that the stand-in does not give, as the dialect has them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from llamastack.api import StopDetail, StopReason, ToolCall
from llamastack.provider import BackendError
from llamastack_adapters.openai_dialect import chat_response
from llamastack_provider_bedrock.replies import as_chunks, as_reply

pytestmark = pytest.mark.anyio


def reply(*blocks: Mapping[str, Any], stop: str = "tool_use") -> dict[str, Any]:
    return {"output": {"message": {"content": list(blocks)}}, "stopReason": stop}


@pytest.mark.parametrize("given", [{}, "", None])
def test_a_call_without_arguments(given: Any) -> None:
    use = {"toolUse": {"toolUseId": "1", "name": "f", "input": given}}
    [call] = chat_response(as_reply(reply(use), "p"), "p").completion_message.tool_calls
    assert call == ToolCall(call_id="1", tool_name="f", arguments={})
    cut = chat_response(as_reply(reply(use, stop="max_tokens"), "p"), "p")
    assert cut.completion_message.tool_calls == []
    assert cut.completion_message.stop_reason is StopReason.out_of_tokens


@pytest.mark.parametrize(
    ("word", "reason", "filtered"),
    [
        ("end_turn", StopReason.end_of_turn, False),
        ("stop_sequence", StopReason.end_of_turn, False),
        ("tool_use", StopReason.end_of_message, False),
        ("max_tokens", StopReason.out_of_tokens, False),
        ("model_context_window_exceeded", StopReason.out_of_tokens, False),
        ("guardrail_intervened", StopReason.end_of_turn, True),
        ("content_filtered", StopReason.end_of_turn, True),
        ("a_word_of_next_year", StopReason.end_of_turn, False),
    ],
)
def test_every_stop_reason(word: str, reason: StopReason, filtered: bool) -> None:
    made = chat_response(as_reply(reply({"text": "Hi"}, stop=word), "p"), "p")
    assert made.completion_message.stop_reason is reason
    assert (made.stop_detail is StopDetail.content_filter) is filtered


@pytest.mark.parametrize("word", ["malformed_tool_use", "malformed_model_output"])
def test_a_reply_that_bedrock_calls_malformed_is_an_error(word: str) -> None:
    with pytest.raises(BackendError, match=word):
        chat_response(as_reply(reply({"text": "Hi"}, stop=word), "p"), "p")


async def test_calls_that_aws_makes_itself_are_not_the_clients() -> None:
    theirs = {"toolUseId": "1", "name": "search", "type": "server_tool_use"}
    mine = {"toolUseId": "2", "name": "f"}
    whole = as_reply(
        reply({"toolUse": {**theirs, "input": {}}}, {"text": "Hi"}, {"toolUse": {**mine, "input": {}}}), "p"
    )
    assert [call["id"] for call in whole["choices"][0]["message"]["tool_calls"]] == ["2"]

    async def events() -> AsyncIterator[Mapping[str, Any]]:
        for index, use in enumerate((theirs, mine)):
            yield {"contentBlockStart": {"contentBlockIndex": index, "start": {"toolUse": use}}}
            yield {"contentBlockDelta": {"contentBlockIndex": index, "delta": {"toolUse": {"input": "{}"}}}}
        yield {"messageStop": {"stopReason": "tool_use"}}

    chunks = [chunk["choices"][0] async for chunk in as_chunks(events(), "p")]
    calls = [call for choice in chunks for call in choice["delta"].get("tool_calls", ())]
    assert [call["index"] for call in calls] == [1, 1]
    assert chunks[-1]["finish_reason"] == "tool_use"
