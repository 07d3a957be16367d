"""Replies of Ollama -> chunks of the OpenAI dialect."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from llamastack.provider.errors import LlamaStackError
from llamastack.provider.streams import closing
from llamastack_adapters.event_streams import drain_briefly
from llamastack_adapters.openai_dialect import understood


async def chunks_of(
    replies: AsyncIterator[dict[str, Any]], cut_short: Callable[[], LlamaStackError], provider_id: str
) -> AsyncIterator[dict[str, Any]]:
    """One chunk for each reply; for chats (`delta`) and text completions (`text`).

    The model's thinking is left out. Raises `cut_short()` if the replies end before one that is `done`.
    """
    called = 0
    async with closing(replies):
        async for reply in replies:
            with understood(provider_id):
                text, calls, logprobs = _parts_of(reply, called)
                called += len(calls)
                choice: dict[str, Any] = {"text": text, "delta": {"content": text, "tool_calls": calls}}
                if logprobs:
                    choice["logprobs"] = {"content": logprobs}
                done = reply.get("done")
                if done:
                    choice["finish_reason"] = reply.get("done_reason") or "stop"
                chunk = {"choices": [choice], "usage": _usage(reply) if done else None}
            if done:
                await drain_briefly(replies)
            yield chunk
            if done:
                return
    raise cut_short()


def whole_of(
    replies: Sequence[dict[str, Any]], cut_short: Callable[[], LlamaStackError], provider_id: str
) -> dict[str, Any]:
    """The same as one whole reply, with `message` and `text`."""
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    logprobs: list[Any] = []
    if not replies or not replies[-1].get("done"):
        raise cut_short()
    last = replies[-1]
    with understood(provider_id):
        for reply in replies:
            text, called, given = _parts_of(reply, len(calls))
            texts.append(text)
            calls += called
            logprobs += given
        joined = "".join(texts)
        choice: dict[str, Any] = {"text": joined, "message": {"content": joined, "tool_calls": calls}}
        if logprobs:
            choice["logprobs"] = {"content": logprobs}
        choice["finish_reason"] = last.get("done_reason") or "stop"
        return {"choices": [choice], "usage": _usage(last)}


def _parts_of(reply: Mapping[str, Any], called: int) -> tuple[str, list[dict[str, Any]], Sequence[Any]]:
    """Text, calls of tools and log probabilities of one piece. called: how many calls there were before."""
    message = reply.get("message") or reply
    text = message.get("content") or reply.get("response") or ""
    calls = [_call(call, called + number) for number, call in enumerate(message.get("tool_calls") or ())]
    thinks = message.get("thinking") and not text
    return text, calls, () if thinks else reply.get("logprobs") or ()


def _call(call: Mapping[str, Any], index: int) -> dict[str, Any]:
    # Older versions of Ollama give calls no id.
    function = call["function"]
    call_id = call.get("id") or f"call_{uuid.uuid4().hex}"
    return {
        "index": index,
        "id": call_id,
        "function": {"name": function["name"], "arguments": function.get("arguments")},
    }


def _usage(reply: Mapping[str, Any]) -> dict[str, int] | None:
    """None if the whole prompt was in Ollama's cache, because older versions do not count it then."""
    prompt, made = reply.get("prompt_eval_count"), reply.get("eval_count")
    return None if prompt is None or made is None else {"prompt_tokens": prompt, "completion_tokens": made}
