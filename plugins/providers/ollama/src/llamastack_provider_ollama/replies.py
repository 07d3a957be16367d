"""Replies of Ollama -> chunks of the OpenAI dialect, which core makes into native ones."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from ollama import ChatResponse, GenerateResponse

from llamastack.provider.errors import LlamaStackError
from llamastack.provider.streams import closing

_UNREAD = "\0arguments"
"""Name of the one argument that holds those that are no object, as the client's types have no other place for them."""


def with_readable_calls(part: dict[str, Any]) -> dict[str, Any]:
    """A reply, or a piece of one, as the client's types want it: arguments of tools are an object."""
    message = part.get("message")
    for call in (message.get("tool_calls") or ()) if isinstance(message, dict) else ():
        function = call.get("function") or {}
        if not isinstance(function.get("arguments"), dict):
            function["arguments"] = {_UNREAD: function.get("arguments")}
    return part


def _arguments(given: Mapping[str, Any]) -> Any:
    return given[_UNREAD] if _UNREAD in given else dict(given)


async def chunks_of(
    replies: AsyncIterator[ChatResponse] | AsyncIterator[GenerateResponse], cut_short: Callable[[], LlamaStackError]
) -> AsyncIterator[dict[str, Any]]:
    """One chunk for each reply; it serves chats (`delta`) and text completions (`text`).

    What a model thinks is no part of them. Raises `cut_short()` when the replies end before one that is `done`.
    """
    called = 0
    async with closing(replies):
        async for reply in replies:
            message = reply.message if isinstance(reply, ChatResponse) else None
            text = (reply.response if isinstance(reply, GenerateResponse) else reply.message.content) or ""
            thinking = reply.thinking if isinstance(reply, GenerateResponse) else reply.message.thinking
            calls = [
                # Older versions of Ollama give calls no id, and its client hands none on.
                {
                    "index": called + number,
                    "id": f"call_{uuid.uuid4().hex}",
                    "function": {"name": call.function.name, "arguments": _arguments(call.function.arguments)},
                }
                for number, call in enumerate((message.tool_calls if message else None) or ())
            ]
            called += len(calls)
            choice: dict[str, Any] = {"text": text, "delta": {"content": text, "tool_calls": calls}}
            if reply.logprobs and not (thinking and not text):
                choice["logprobs"] = {"content": [entry.model_dump() for entry in reply.logprobs]}
            if reply.done:
                reason = reply.done_reason or "stop"
                choice["finish_reason"] = reason
            yield {"choices": [choice], "usage": _usage(reply) if reply.done else None}
            if reply.done:
                return
    raise cut_short()


def _usage(reply: ChatResponse | GenerateResponse) -> dict[str, int] | None:
    """None where the whole prompt was in Ollama's cache, which older versions then do not count."""
    if reply.prompt_eval_count is None or reply.eval_count is None:
        return None
    return {"prompt_tokens": reply.prompt_eval_count, "completion_tokens": reply.eval_count}


async def collected(chunks: AsyncIterator[dict[str, Any]]) -> dict[str, Any]:
    """All chunks of one reply as a whole reply of the dialect."""
    text: list[str] = []
    calls: list[dict[str, Any]] = []
    logprobs: list[dict[str, Any]] = []
    reason: str | None = None
    usage: dict[str, int] | None = None
    async for chunk in chunks:
        usage = chunk["usage"]
        choice = chunk["choices"][0]
        text.append(choice["text"])
        calls += choice["delta"]["tool_calls"]
        logprobs += choice.get("logprobs", {}).get("content", ())
        reason = choice.get("finish_reason", reason)
    whole: dict[str, Any] = {
        "text": "".join(text),
        "message": {"content": "".join(text), "tool_calls": calls},
        "finish_reason": reason,
    }
    choices = [{**whole, "logprobs": {"content": logprobs}} if logprobs else whole]
    return {"choices": choices, "usage": usage}
