"""Forms of requests that clients of release 0.0.41 and of OpenAI's API send to native routes, over HTTP."""

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
IMAGE = "data:image/png;base64,iVBORw0KGgo="


@asynccontextmanager
async def served(discovery: Discovery) -> AsyncIterator[httpx.AsyncClient]:
    sample = [{"provider_id": "s", "provider_type": "remote::sample"}]
    inference = [{"provider_id": "a", "provider_type": "scripted"}]
    async with served_stack({"providers": {"inference": inference, "memory": sample}}, discovery) as (_, client):
        bank = {"identifier": "b", "type": "keyword"}
        assert (await client.post("/memory_banks/register", json={"memory_bank": bank})).json() is None
        yield client


def chat(content: Any = "Hi", **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


@pytest.mark.parametrize(
    "content", [{"image": {"uri": IMAGE}}, {"image": IMAGE}, ["look", {"image": {"uri": IMAGE}}, {"image": IMAGE}]]
)
async def test_images_by_both_forms_of_urls(discovery: Discovery, script: Callable[..., Script], content: Any) -> None:
    asked = script("default")
    async with served(discovery) as client:
        assert (await client.post("/inference/chat_completion", json=chat(content))).status_code == 200
        [message] = asked.last("chat_completion")["messages"]
        parts = message.content if isinstance(message.content, list) else [message.content]
        assert [part.image for part in parts if not isinstance(part, str)] == [IMAGE] * (len(parts) - (len(parts) > 1))


async def test_documents_by_both_forms_of_urls(discovery: Discovery, script: Callable[..., Script]) -> None:
    script("default")
    async with served(discovery) as client:
        for place, content in enumerate(
            (
                {"uri": "data:text/plain,llamas%20hum"},
                {"uri": "data:text/plain; charset=utf-8,llamas%20hum"},
                "data:text/plain,llamas%20hum",
                "data:text/plain; charset=utf-8,llamas%20hum",
            )
        ):
            document = {"document_id": str(place), "content": content, "metadata": {}}
            reply = await client.post("/memory/insert", json={"bank_id": "b", "documents": [document]})
            assert (reply.status_code, reply.json()) == (200, None)
        found = (await client.post("/memory/query", json={"bank_id": "b", "query": "hum"})).json()
        assert {chunk["content"] for chunk in found["chunks"]} == {"llamas hum"}
        document = {"document_id": "x", "content": {"uri": "see http://host"}}
        reply = await client.post("/memory/insert", json={"bank_id": "b", "documents": [document]})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "documents[0].content.uri")


@pytest.mark.parametrize(
    ("route", "body"), [("/memory/insert", {"documents": []}), ("/memory/delete", {"document_ids": []})]
)
async def test_nothing_to_do_is_no_error(
    discovery: Discovery, script: Callable[..., Script], route: str, body: dict[str, Any]
) -> None:
    script("default")
    async with served(discovery) as client:
        reply = await client.post(route, json={"bank_id": "b", **body})
        assert (reply.status_code, reply.json()) == (200, None)
        assert (await client.post(route, json={"bank_id": "none", **body})).status_code == 404


async def test_replies_have_the_old_fields(discovery: Discovery, script: Callable[..., Script]) -> None:
    script("default", pieces=1)
    async with served(discovery) as client:
        model = {"identifier": "m", "provider_id": "a", "llama_model": "m", "metadata": {}}
        assert (await client.get("/models/list")).json() == [model]
        assert (await client.get("/models/get?identifier=m")).json() == model
        assert (await client.post("/models/register", json={"model": model})).json() is None
        assert (await client.post("/models/register", json={"model": {"identifier": "m"}})).json() is None
        whole = (await client.post("/inference/chat_completion", json=chat())).json()
        assert (whole["logprobs"], "usage" in whole) == (None, False)
        streamed = await client.post("/inference/chat_completion", json=chat(stream=True))
        events = [json.loads(line.removeprefix("data: "))["event"] for line in streamed.text.splitlines() if line]
        assert [set(event) for event in events] == [{"event_type", "delta", "logprobs", "stop_reason"}] * 3
        assert [event["stop_reason"] for event in events] == [None, None, "end_of_turn"]
        bank = (await client.get("/memory_banks/get?identifier=b")).json()
        assert bank == {"identifier": "b", "provider_id": "s", "type": "keyword"}


async def test_a_response_format_as_openai_wraps_it(discovery: Discovery, script: Callable[..., Script]) -> None:
    asked = script("default")
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    wrapped = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    async with served(discovery) as client:
        reply = await client.post("/inference/chat_completion", json=chat(response_format=wrapped))
        assert reply.status_code == 200
        assert asked.last("chat_completion")["response_format"].json_schema == schema
        wrapped["json_schema"] = {"name": "answer"}
        reply = await client.post("/inference/chat_completion", json=chat(response_format=wrapped))
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "response_format.json_schema")
        body = chat(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"name": "b"}}})
        reply = await client.post("/v1/chat/completions", json=body)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "response_format.json_schema.schema")


@pytest.mark.parametrize(
    ("route", "body", "param"),
    [
        ("/inference/chat_completion", chat(None), "messages[0].content"),
        ("/inference/chat_completion", chat(["a", 5]), "messages[0].content[1]"),
        ("/inference/chat_completion", chat(tools=[{"tool_name": None}]), "tools[0].tool_name"),
        ("/inference/completion", {"model": "m", "content": None}, "content"),
        ("/inference/embeddings", {"model": "m", "contents": [None]}, "contents[0]"),
        (
            "/memory_banks/register",
            {"memory_bank": {"type": "vector", "identifier": "v"}},
            "memory_bank.embedding_model",
        ),
        ("/memory_banks/register", {"memory_bank": None}, "memory_bank"),
        ("/models/register", {"model": {"identifier": None}}, "model.identifier"),
        ("/v1/chat/completions", chat(None), "messages[0].content"),
        ("/v1/chat/completions", chat([{"type": "text", "text": None}]), "messages[0].content[0].text"),
        ("/v1/embeddings", {"model": "m", "input": None}, "input"),
        ("/v1/completions", {"model": "m", "prompt": {}}, "prompt"),
    ],
)
async def test_errors_name_what_the_caller_wrote(
    discovery: Discovery, script: Callable[..., Script], route: str, body: dict[str, Any], param: str
) -> None:
    script("default")
    async with served(discovery) as client:
        reply = await client.post(route, json=body)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param), reply.text
        for word in ("str-enum", "constrained", "ImageMedia", "list[", "union", "UserMessage", ".str", ".vector"):
            assert word not in reply.text
