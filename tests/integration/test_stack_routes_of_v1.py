"""Routes of `/v1` for clients of newer llama-stack releases, over plain HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from scripted_stacks import Scripts
from served_stack import served_stack

from llamastack.stack.discovery import Discovery

pytestmark = pytest.mark.anyio
CONFIG: dict[str, Any] = {
    "providers": {
        "inference": [{"provider_id": "a", "provider_type": "scripted", "config": {"script": "a"}}],
        "safety": [{"provider_id": "a", "provider_type": "remote::sample"}],
    },
}


async def got(client: httpx.AsyncClient, path: str) -> Any:
    reply = await client.get(f"/v1/{path}")
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_what_a_stack_consists_of(discovery: Discovery, script: Scripts) -> None:
    script("a")
    async with served_stack(CONFIG, discovery) as (_, client):
        first, second = (await got(client, "providers"))["data"]
        assert first == {
            "api": "inference",
            "provider_id": "a",
            "provider_type": "scripted",
            "config": {},
            "health": {"status": "OK"},
        }
        assert await got(client, "providers/a") == first
        assert await got(client, "providers/a?api=safety") == second
        assert await got(client, "health") == {"status": "OK"}
        assert await got(client, "version") == {"version": "0.1.0"}
        routes = (await got(client, "inspect/routes"))["data"]
        chat = {"route": "/inference/chat_completion", "method": "POST", "provider_types": ["scripted"]}
        assert chat in routes
        error = (await client.get("/v1/providers/nobody?api=safety")).json()["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "not_found")
        assert "there are a (inference), a (safety)" in error["message"]


async def test_a_provider_that_is_down_is_an_error_with_its_reason(discovery: Discovery, script: Scripts) -> None:
    script("a").fail_start = ConnectionError("nobody is at home")
    async with served_stack(CONFIG, discovery) as (_, client):
        health = (await got(client, "providers/a"))["health"]
        assert health["status"] == "Error"
        assert "nobody is at home" in health["message"]
        assert await got(client, "health") == {"status": "Error"}


async def test_models_tell_their_kind(discovery: Discovery, script: Scripts) -> None:
    script("a")
    async with served_stack(CONFIG, discovery) as (_, client):
        [model] = (await got(client, "models"))["data"]
        assert (model["id"], model["object"], model["owned_by"]) == ("m", "model", "a")
        assert model["custom_metadata"] == {"model_type": "llm", "provider_id": "a", "provider_resource_id": "m"}
        assert (model["identifier"], model["type"], model["model_type"]) == ("m", "model", "llm")
        assert await got(client, "models/m") == model


async def test_shields_are_listed_and_run(discovery: Discovery, script: Scripts) -> None:
    script("a")
    async with served_stack(CONFIG, discovery) as (_, client):
        shields = (await got(client, "shields"))["data"]
        name = shields[0]["identifier"]
        assert (shields[0]["type"], shields[0]["provider_id"]) == ("shield", "a")
        assert await got(client, f"shields/{name}") == shields[0]
        missing = await client.get("/v1/shields/nothing")
        assert (missing.status_code, missing.json()["error"]["param"]) == (404, "identifier")

        async def run(*messages: Any) -> httpx.Response:
            body = {"shield_id": name, "messages": messages, "params": {}}
            return await client.post("/v1/safety/run-shield", json=body)

        assert (await run({"role": "user", "content": "Hello"})).json() == {"violation": None}
        for content in ("forbidden", {"type": "text", "text": "forbidden"}, [{"type": "text", "text": "forbidden"}]):
            violation = (await run({"role": "system", "content": "x"}, {"role": "user", "content": content})).json()
            assert violation["violation"]["violation_level"] == "error", content
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
        refused = (await run({"role": "user", "content": [image]})).json()["error"]
        assert refused["param"] == "messages[0].content[0]"
        reply = await client.post("/v1/safety/run-shield", json={"messages": []})
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "missing_required_parameter")


async def test_they_are_in_the_openapi_document(discovery: Discovery, script: Scripts) -> None:
    script("a")
    async with served_stack(CONFIG, discovery) as (_, client):
        paths = (await client.get("/openapi.json")).json()["paths"]
        assert paths["/v1/providers/{provider_id}"]["get"]["parameters"][-1]["name"] == "provider_id"
        assert paths["/v1/safety/run-shield"]["post"]["requestBody"]["required"] is True


async def test_a_stack_without_shields_has_no_routes_for_them(discovery: Discovery, script: Scripts) -> None:
    script("a")
    config = {"providers": {"inference": CONFIG["providers"]["inference"]}}
    async with served_stack(config, discovery) as (_, client):
        assert (await client.get("/v1/shields")).status_code == 404
        assert (await client.get("/v1/providers")).status_code == 200
