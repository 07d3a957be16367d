"""Replies that have no sensible form: an error of the backend, never a fault of this software, with every adapter."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from backends.scripted_http import ScriptedHttp, answer, served_by

from llamastack.api import UserMessage
from llamastack.provider.errors import LlamaStackError
from llamastack.stack import Stack

pytestmark = pytest.mark.anyio
ASK = [UserMessage(content="Hi")]
DEEP = '{"a":' * 3000
ADAPTERS: dict[str, tuple[str, ...]] = {
    "remote::openai": ("/chat/completions", "/completions", "/embeddings"),
    "remote::tgi": ("/chat/completions", "/completions", "/embeddings", "/"),
    "remote::ollama": ("/api/chat", "/api/generate", "/api/embed"),
    "remote": ("/inference/chat_completion", "/inference/completion", "/inference/embeddings"),
}
CALLS: list[Any] = [7, [7], [{"function": 7}], [{"function": {"name": [], "arguments": 7}}]]
CONTENTS: list[Any] = [
    *({"choices": choices} for choices in (7, [7], {}, "a", [{"message": 7}], [{"delta": 7}], [{"text": 7}])),
    *({"choices": [{"message": message, "delta": message}]} for message in ({"content": 7}, {"content": [7]})),
    *({"choices": [{"message": {"tool_calls": calls}, "delta": {"tool_calls": calls}}]} for calls in CALLS),
    *({"choices": [{"message": {"content": "a"}, "finish_reason": word}]} for word in (7, ["a"], {}, {"type": 7})),
    *({"data": data} for data in (7, [7], [{"embedding": "a"}], [{"embedding": [1], "index": "a"}])),
    *({"error": error} for error in (7, [7], [{"message": "m", "code": 429}])),
    *({"message": message, "done": True} for message in (7, {"content": 7}, {"role": "assistant", "content": [7]})),
    *({"message": {"role": "assistant", "content": "a", "tool_calls": calls}, "done": True} for calls in CALLS),
    *({"embeddings": vectors} for vectors in (7, [["a"]])),
    *({"event": event} for event in (7, {"event_type": "progress", "delta": 7})),
    *([], [[]], [None], None, 7, "a", {}, {"completion_message": 7}),
]
BODIES = [DEEP, "[" * 3000, DEEP + "1" + "}" * 3000, *map(json.dumps, CONTENTS)]


def calls_of(stack: Stack) -> Iterator[Callable[[], Awaitable[Any]]]:
    for stream in (False, True):
        yield lambda stream=stream: stack.inference.chat_completion(model="p/m", messages=ASK, stream=stream)
        yield lambda stream=stream: stack.inference.completion(model="p/m", content="a", stream=stream)
    yield lambda: stack.inference.embeddings(model="p/m", contents=["a"])


async def failure_of(call: Callable[[], Awaitable[Any]]) -> LlamaStackError | None:
    try:
        reply = await call()
        if hasattr(reply, "__aiter__"):
            async for _ in reply:
                pass
    except LlamaStackError as error:
        return error
    return None


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_no_reply_is_taken_for_a_fault_of_this_software(scripted_backend: ScriptedHttp, adapter: str) -> None:
    scripted_backend.routes["/info"] = answer(200, {"model_id": "m", "max_total_tokens": 4096})
    scripted_backend.routes["/health"] = answer(200, {"status": "OK", "providers": []})
    scripted_backend.routes["/models/list"] = answer(200, [{"identifier": "m", "provider_id": "far"}])
    scripted_backend.routes["/api/tags"] = answer(200, {"models": [{"name": "m", "model": "m"}]})
    config = served_by(scripted_backend, adapter, path="", max_retries=0)
    if adapter == "remote":
        del config["config"]["max_retries"]
    wrong: list[str] = []
    failures = 0
    async with Stack.from_config({"providers": {"inference": [config]}, "refresh_interval_s": 600}) as stack:
        for body in BODIES:
            for content, kind in (
                (body, "application/json"),
                (f"data: {body}\n\ndata: [DONE]\n\n", "text/event-stream"),
                (f"{body}\n", "application/x-ndjson"),
            ):
                scripted_backend.received.clear()
                for path in ADAPTERS[adapter]:
                    scripted_backend.routes[path] = answer(200, content, content_type=kind)
                for number, call in enumerate(calls_of(stack)):
                    error = await failure_of(call)
                    failures += error is not None
                    if error is not None and error.status in (404, 500):
                        wrong.append(f"call {number}: {content[:80]} as {kind}: {error.message}")
    assert not wrong, "\n".join(wrong)
    assert failures > len(BODIES)
