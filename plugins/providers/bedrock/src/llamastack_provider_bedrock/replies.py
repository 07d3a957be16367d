"""Replies and events of Converse -> those of the OpenAI dialect."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from llamastack.provider.streams import closing
from llamastack_adapters.openai_dialect import understood


def _call(use: Mapping[str, Any], arguments: object, index: int) -> dict[str, Any]:
    return {"index": index, "id": use["toolUseId"], "function": {"name": use["name"], "arguments": arguments}}


def as_reply(reply: Mapping[str, Any], provider_id: str) -> dict[str, Any]:
    """A reply of Converse as a chat completion, without reasoning and citations."""
    with understood(provider_id):
        blocks = reply["output"]["message"]["content"]
        message = {
            "content": "".join(block.get("text", "") for block in blocks),
            "tool_calls": [
                # A call that max_tokens cut off before its input has no input or an empty one.
                _call(block["toolUse"], block["toolUse"].get("input") or "", index)
                for index, block in enumerate(blocks)
                if "toolUse" in block and _is_the_clients(block["toolUse"])
            ],
        }
        return {
            "choices": [{"message": message, "finish_reason": reply["stopReason"]}],
            "usage": _usage(reply),
        }


def _usage(holder: Mapping[str, Any]) -> dict[str, Any] | None:
    usage = holder.get("usage")
    return usage and {"prompt_tokens": usage["inputTokens"], "completion_tokens": usage["outputTokens"]}


def _is_the_clients(use: Mapping[str, Any]) -> bool:
    """Whether the client makes the call, not AWS itself."""
    return use.get("type") != "server_tool_use"


async def as_chunks(events: AsyncIterator[Mapping[str, Any]], provider_id: str) -> AsyncIterator[dict[str, Any]]:
    """Events of ConverseStream as chunks of a chat completion."""
    others: set[int] = set()  # blocks of calls that AWS makes itself
    async with closing(events):
        async for event in events:
            with understood(provider_id):
                chunk = {"choices": [_choice(event, others)], "usage": _usage(event.get("metadata", {}))}
            yield chunk


def _choice(event: Mapping[str, Any], others: set[int]) -> dict[str, Any]:
    if "contentBlockStart" in event:
        block = event["contentBlockStart"]
        use = block["start"].get("toolUse")
        if use is not None and not _is_the_clients(use):
            others.add(block["contentBlockIndex"])
            use = None
        return {"delta": {} if use is None else {"tool_calls": [_call(use, "", block["contentBlockIndex"])]}}
    if "contentBlockDelta" in event:
        block = event["contentBlockDelta"]
        delta, index = block["delta"], block["contentBlockIndex"]
        if index in others:
            return {"delta": {}}
        if "toolUse" in delta:
            return {"delta": {"tool_calls": [{"index": index, "function": {"arguments": delta["toolUse"]["input"]}}]}}
        return {"delta": {"content": delta.get("text")}}
    if "messageStop" in event:
        return {"delta": {}, "finish_reason": event["messageStop"]["stopReason"]}
    return {"delta": {}}
