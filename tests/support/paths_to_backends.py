"""All ways to one backend: in process, over HTTP, on /v1 translated and forwarded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from backends.scripted_http import ScriptedHttp, Steps, served_by
from openai_bodies import data_of
from served_stack import served_stack

from llamastack import Stack
from llamastack.api import UserMessage
from llamastack.provider.errors import LlamaStackError

ASK = [UserMessage(content="Hi")]
ASKED = [{"role": "user", "content": "Hi"}]
BODY = {"messages": ASKED}


def chunk(content: str | None = None, finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": {} if content is None else {"content": content}, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}


WHOLE: dict[str, Any] = {
    "id": "c",
    "object": "chat.completion",
    "created": 0,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}


@dataclass
class Outcome:
    """What a client is told: the status (200 for a stream that begins), an error's message, the text before it."""

    status: int
    message: str = ""
    text: str = ""
    finish: str | None = None


class Paths:
    """All ways to one backend."""

    def __init__(self, backend: ScriptedHttp, far: tuple[Stack, httpx.AsyncClient], near: httpx.AsyncClient) -> None:
        self.backend = backend
        self.stack, self.far = far
        self.near = near

    async def natively(self, *, stream: bool) -> Outcome:
        """In process."""
        outcome = Outcome(200)
        try:
            reply: Any = await self.stack.inference.chat_completion(model="p/m", messages=ASK, stream=stream)
            if not stream:
                message = reply.completion_message
                return Outcome(200, text=message.content, finish=message.stop_reason.value)
            async for piece in reply:
                outcome.text += piece.event.delta if isinstance(piece.event.delta, str) else ""
                outcome.finish = piece.event.stop_reason and piece.event.stop_reason.value
        except LlamaStackError as error:
            outcome.status, outcome.message = error.status, error.message
        return outcome

    async def over_http(self, *, stream: bool) -> Outcome:
        """The native route."""
        body = {"model": "p/m", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
        reply = await self.far.post("/inference/chat_completion", json=body)
        if reply.status_code != 200:
            return Outcome(reply.status_code, reply.json()["error"]["message"])
        if not stream:
            message = reply.json()["completion_message"]
            return Outcome(200, text=message["content"], finish=message["stop_reason"])
        outcome = Outcome(200)
        for event in data_of(reply.text):
            if "error" in event:
                outcome.message = event["error"]["message"]
            else:
                outcome.text += event["event"]["delta"]
                outcome.finish = event["event"].get("stop_reason")
        return outcome

    async def translated(self, *, stream: bool) -> Outcome:
        return await _on_v1(self.near, "r/m", stream=stream)

    async def forwarded(self, *, stream: bool) -> Outcome:
        return await _on_v1(self.far, "p/m", stream=stream)

    async def all_of(self, steps: Steps, *, stream: bool) -> dict[str, Outcome]:
        """What is told on each path when the backend answers so."""
        self.backend.routes["/chat/completions"] = steps
        return {
            path.__name__: await path(stream=stream)
            for path in (self.natively, self.over_http, self.translated, self.forwarded)
        }


async def _on_v1(client: httpx.AsyncClient, model: str, *, stream: bool) -> Outcome:
    reply = await client.post("/v1/chat/completions", json={**BODY, "model": model, "stream": stream})
    if reply.status_code != 200:
        assert reply.headers["content-type"] == "application/json"
        return Outcome(reply.status_code, reply.json()["error"]["message"])
    if not stream:
        [choice] = reply.json()["choices"]
        return Outcome(200, text=choice["message"]["content"], finish=choice["finish_reason"])
    outcome = Outcome(200)
    for event in data_of(reply.text):
        if event == "[DONE]":
            continue
        if "error" in event:
            outcome.message = event["error"]["message"]
        for choice in event.get("choices") or ():
            outcome.text += choice["delta"].get("content") or ""
            outcome.finish = choice["finish_reason"] or outcome.finish
    if not outcome.message:
        assert reply.text.endswith("data: [DONE]\n\n")
    return outcome


@asynccontextmanager
async def paths_to(backend: ScriptedHttp, **config: Any) -> AsyncIterator[Paths]:
    config = {"max_retries": 0, "api_key": "k", **config}
    async with AsyncExitStack() as opened:
        far = await opened.enter_async_context(
            served_stack({"providers": {"inference": [served_by(backend, **config)]}, "refresh_interval_s": 60})
        )
        url = str(far[1].base_url)
        passing = {"provider_id": "r", "provider_type": "remote", "config": {"url": url}}
        _, near = await opened.enter_async_context(
            served_stack({"providers": {"inference": [passing]}, "refresh_interval_s": 60})
        )
        yield Paths(backend, far, near)
