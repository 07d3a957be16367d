"""The header X-LlamaStack-ProviderData in every form: of use to providers that need it, of no matter to the others."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from scripted_fake import Script
from served_stack import served_stack

from llamastack.stack.discovery import Discovery

pytestmark = pytest.mark.anyio
NAME = "X-LlamaStack-ProviderData"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
ROUTES = ("/inference/chat_completion", "/v1/chat/completions")
ODD: dict[str, bytes] = {
    "empty": b"",
    "text": b"hunter2-secret",
    "a list": b'["hunter2-secret"]',
    "null": b"null",
    "a text": b'"hunter2-secret"',
    "a number": b"1e999",
    "half": b'{"scripted_api_key": "hunter2-secret"',
    "latin-1": b"\xe9\xff hunter2-secret",
    "a lone surrogate": b'{"scripted_api_key": "hunter2-secret\\ud83d"}',
    "deep": b'{"a":' * 2000 + b"1" + b"}" * 2000,
    "deep lists": b"[" * 20_000,
    "huge": b"x" * 40_000,
}


@asynccontextmanager
async def served(discovery: Discovery, provider: dict[str, Any]) -> AsyncIterator[httpx.AsyncClient]:
    config = {"providers": {"inference": [{"provider_id": "a", **provider}]}}
    async with served_stack(config, discovery) as (_, client):
        yield client


def header(value: bytes) -> httpx.Headers:
    return httpx.Headers([(NAME.encode(), value)])


@pytest.mark.parametrize("kind", ODD)
async def test_odd_headers(discovery: Discovery, script: Callable[..., Script], kind: str) -> None:
    script("default")
    needs_none = {"provider_type": "remote::sample", "config": {"models": ["m"]}}
    async with served(discovery, needs_none) as client:
        for path in ("/models/list", "/v1/models", "/health"):
            assert (await client.get(path, headers=header(ODD[kind]))).status_code == 200
        for path in ROUTES:
            reply = await client.post(path, json=CHAT, headers=header(ODD[kind]))
            assert reply.status_code == 200, reply.text
    async with served(discovery, {"provider_type": "scripted"}) as client:
        assert (await client.get("/models/list", headers=header(ODD[kind]))).status_code == 200
        for path in ROUTES:
            reply = await client.post(path, json=CHAT, headers=header(ODD[kind]))
            assert (reply.status_code, reply.json()["error"]["param"]) == (400, NAME)
            assert "hunter2" not in reply.text


async def test_both_encodings_are_read(discovery: Discovery, script: Callable[..., Script]) -> None:
    asked = script("default")
    async with served(discovery, {"provider_type": "scripted"}) as client:
        for encoding in ("utf-8", "latin-1"):
            value = json.dumps({"scripted_api_key": "clé", "of_another": {}}, ensure_ascii=False).encode(encoding)
            await client.post(ROUTES[0], json=CHAT, headers=header(value))
            assert asked.last("request_data").scripted_api_key == "clé"


@pytest.mark.parametrize("kind", ["text", "a list", "latin-1", "deep", "huge"])
async def test_a_server_behind_says_whether_it_needs_it(
    discovery: Discovery, script: Callable[..., Script], kind: str
) -> None:
    script("default")
    for behind, status in (({"provider_type": "scripted"}, 400), ({"provider_type": "remote::sample"}, 200)):
        if status == 200:
            behind["config"] = {"models": ["m"]}
        async with (
            served(discovery, behind) as far,
            served(discovery, {"provider_type": "remote", "config": {"url": str(far.base_url)}}) as near,
        ):
            reply = await near.post(ROUTES[0], json=CHAT, headers=header(ODD[kind]))
            assert reply.status_code == status, reply.text
            assert "hunter2" not in reply.text


async def test_the_header_is_described(discovery: Discovery, script: Callable[..., Script]) -> None:
    script("default")
    async with served(discovery, {"provider_type": "scripted"}) as client:
        document = (await client.get("/openapi.json")).json()
    for verbs in document["paths"].values():
        for operation in verbs.values():
            shared = document["components"]["parameters"]
            parameters = [shared[p["$ref"].rpartition("/")[2]] if "$ref" in p else p for p in operation["parameters"]]
            [parameter] = [p for p in parameters if p["name"] == NAME]
            assert parameter["content"]["application/json"]["schema"]["type"] == "object"
            assert "schema" not in parameter
