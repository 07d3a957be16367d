"""Replies of Converse that the stand-in does not give, as the dialect has them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from llamastack_provider_bedrock.replies import as_chunks, as_reply

pytestmark = pytest.mark.anyio


def reply(*blocks: Mapping[str, Any], stop: str = "tool_use") -> dict[str, Any]:
    return {"output": {"message": {"content": list(blocks)}}, "stopReason": stop}


@pytest.mark.parametrize("given", [{}, "", None])
def test_a_call_without_arguments(given: Any) -> None:
    made = as_reply(reply({"toolUse": {"toolUseId": "1", "name": "f", "input": given}}), "p")
    [call] = made["choices"][0]["message"]["tool_calls"]
    assert call["function"] == {"name": "f", "arguments": "{}"}


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
    assert chunks[-1]["finish_reason"] == "tool_calls"
