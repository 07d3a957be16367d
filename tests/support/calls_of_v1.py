"""What tests of `/v1` send, and the run configs that they serve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
from backends.llama_server import MODEL
from backends.openai_front import OpenAIFront

Front = Callable[..., tuple[OpenAIFront, str]]
CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
    "max_tokens": 8,
}
LONG = {
    **ASK,
    "max_tokens": 1500,
    "messages": [{"role": "user", "content": "Count from one to one thousand, in words."}],
}
TO_M = {**ASK, "model": "m"}


def before(url: str, provider_type: str = "remote::openai", **config: Any) -> dict[str, Any]:
    """A run config with one provider in front of a backend."""
    provider = {"provider_id": "far", "provider_type": provider_type, "config": {"url": url, **config}}
    return {"providers": {"inference": [provider]}}


def scripted(**more: Any) -> dict[str, Any]:
    """A run config with a provider that knows only the native protocol."""
    provider = {"provider_id": "a", "provider_type": "scripted", "config": {"script": "a"}}
    return {"providers": {"inference": [provider], **more}}


async def consume(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    async with client.stream("POST", CHAT, json=body) as reply:
        async for _ in reply.aiter_bytes():
            pass
