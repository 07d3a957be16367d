"""`/v1` over the real server, translated for providers of the native protocol; models, moderations and routes."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from backends.fault_proxy import FaultProxy
from calls_of_v1 import ASK, CHAT, TO_M, Front, before, consume, scripted
from openai_bodies import data_of
from scripted_stacks import Scripts
from served_stack import served_stack

from llamastack.provider.errors import (
    AuthenticationError,
    BackendError,
    ContextLengthExceededError,
    InvalidRequestError,
    LlamaStackError,
    NotSupportedError,
    PermissionDeniedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
)
from llamastack.stack.discovery import Discovery

pytestmark = pytest.mark.anyio


# ---- translated ------------------------------------------------------------------------------------------------------


async def test_a_provider_of_the_native_protocol_alone(discovery: Discovery, script: Scripts) -> None:
    a = script("a", pieces=2)
    async with served_stack(scripted(), discovery) as (_, client):
        whole = (await client.post(CHAT, json={**TO_M, "n": 2})).json()
        assert [choice["message"]["content"] for choice in whole["choices"]] == ["a", "a"]
        assert whole["model"] == "m"
        assert sum(name == "chat_completion" for name, _ in a.calls) == 2
        *chunks, done = data_of((await client.post(CHAT, json={**TO_M, "stream": True})).text)
        assert done == "[DONE]"
        assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks) == "0 1 "
        text = (await client.post("/v1/completions", json={"model": "m", "prompt": ["x", "y"]})).json()
        assert [choice["text"] for choice in text["choices"]] == ["a", "a"]


async def test_a_client_that_goes_away_while_several_streams_begin(discovery: Discovery, script: Scripts) -> None:
    a = script("a", pieces=10_000, piece_delay_s=0.01, slow_start_s=[0.0, 60.0])
    async with served_stack(scripted(), discovery) as (_, client):
        async with anyio.create_task_group() as calling:
            calling.start_soon(consume, client, {**TO_M, "stream": True, "n": 2})
            while sum(name == "chat_completion" for name, _ in a.calls) < 2:
                await anyio.sleep(0.01)
            await anyio.sleep(0.1)
            calling.cancel_scope.cancel()
        with anyio.fail_after(5):
            while a.opened_streams != a.closed_streams:
                await anyio.sleep(0.01)
    assert a.opened_streams == 1


async def test_a_provider_that_is_down_is_said_to_be_down(front: Front, faulty: Callable[..., FaultProxy]) -> None:
    _, url = front()
    proxy = faulty(url.removesuffix("/v1"))
    async with served_stack(before(f"{proxy.url}/v1")) as (stack, client):
        instance = stack.instances["inference"][0]
        provider, instance.provider = instance.provider, None
        reply = await client.post(CHAT, json={**ASK, "min_p": 0.1, "frequency_penalty": 0.5})
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "provider_unavailable")
        instance.provider = provider


async def test_seeds_of_several_answers_differ(discovery: Discovery, script: Scripts) -> None:
    a = script("a")
    async with served_stack(scripted(), discovery) as (_, client):
        await client.post(CHAT, json={**TO_M, "n": 3, "seed": 2**32 - 2})
    seeds = {call["sampling_params"].seed for name, call in a.calls if name == "chat_completion"}
    assert seeds == {2**32 - 2, 0, 1}


async def test_embeddings(discovery: Discovery, script: Scripts) -> None:
    script("a")
    async with served_stack(scripted(), discovery) as (_, client):
        asked = {"model": "m", "input": ["x", "y"], "encoding_format": "base64"}
        data = (await client.post("/v1/embeddings", json=asked)).json()["data"]
        assert [struct.unpack("<f", base64.b64decode(entry["embedding"])) for entry in data] == [(0.0,), (0.0,)]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("n", [1, 3])
async def test_a_client_that_goes_away_cancels_every_call(
    discovery: Discovery, script: Scripts, stream: bool, n: int
) -> None:
    a = script("a", pieces=10_000, piece_delay_s=0.02 if stream else 60)
    async with served_stack(scripted(), discovery) as (_, client):

        async def read() -> None:
            async with client.stream("POST", CHAT, json={**TO_M, "stream": stream, "n": n}) as reply:
                async for _ in reply.aiter_lines():
                    pass

        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(read)
                while sum(name == "chat_completion" for name, _ in a.calls) < n:
                    await anyio.sleep(0.01)
                group.cancel_scope.cancel()
        with anyio.fail_after(5):
            while a.in_flight:
                await anyio.sleep(0.01)


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (InvalidRequestError("x", param="p"), 400, "invalid_request_error", None),  # of the backend, which did not say
        (ContextLengthExceededError("x", param="p"), 400, "invalid_request_error", "context_length_exceeded"),
        (NotSupportedError("x", param="tools"), 400, "invalid_request_error", "unsupported_parameter"),
        (AuthenticationError("x"), 401, "invalid_request_error", "invalid_api_key"),
        (PermissionDeniedError("x"), 403, "permission_error", "permission_denied"),
        (RateLimitError("x", retry_after=3), 429, "rate_limit_error", "rate_limit_exceeded"),
        (RuntimeError("x"), 500, "server_error", None),
        (BackendError("x"), 502, "server_error", "backend_error"),
        (ProviderUnavailableError("x"), 503, "server_error", "provider_unavailable"),
        (ProviderTimeoutError("x"), 504, "server_error", "provider_timeout"),
    ],
)
async def test_the_error_family_in_openais_shape(
    discovery: Discovery, script: Scripts, error: Exception, status: int, kind: str, code: str | None
) -> None:
    script("a", fail_call=error)
    async with served_stack(scripted(), discovery) as (_, client):
        reply = await client.post(CHAT, json={**TO_M, "stream": True})
        body = reply.json()["error"]
        assert (reply.status_code, body["type"], body["code"]) == (status, kind, code)
        assert body["param"] == (error.param if isinstance(error, LlamaStackError) else None)
        assert body["request_id"] == reply.headers["x-request-id"]


async def test_a_failure_in_mid_stream_is_an_error_event(discovery: Discovery, script: Scripts) -> None:
    script("a", fail_after_pieces=1)
    async with served_stack(scripted(), discovery) as (_, client):
        last = data_of((await client.post(CHAT, json={**TO_M, "stream": True, "n": 2})).text)[-1]
        assert (last["error"]["type"], last["error"]["provider_id"]) == ("server_error", "a")


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"{", None, None),
        (b"[]", None, None),
        (b'{"model": "m"}', "messages", "missing_required_parameter"),
        (b'{"model": "m", "messages": [{"role": "user", "content": 5}]}', "messages[0].content", "invalid_value"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "n": 0}', "n", "invalid_value"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "x": 1}', "x", "unknown_parameter"),
        (b'{"model": "m", "messages": [{"role": "nobody", "content": "x"}]}', "messages[0].role", "invalid_value"),
        (b'{"model": "no", "messages": [{"role": "user", "content": "x"}]}', "model", "model_not_found"),
    ],
)
async def test_bad_requests_are_told_where(
    discovery: Discovery, script: Scripts, body: bytes, param: str | None, code: str | None
) -> None:
    script("a")
    async with served_stack(scripted(), discovery) as (_, client):
        reply = await client.post(CHAT, content=body)
        error = reply.json()["error"]
        assert reply.status_code == (404 if code == "model_not_found" else 400)
        assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)


# ---- models, moderations, routes -------------------------------------------------------------------------------------


async def test_models(discovery: Discovery, script: Scripts) -> None:
    script("a", serves=["m", "org/some model"])
    async with served_stack(scripted(), discovery) as (_, client):
        listed = (await client.get("/v1/models")).json()
        assert [(model["id"], model["owned_by"]) for model in listed["data"]] == [("m", "a"), ("org/some model", "a")]
        for name in ("m", "a/m"):
            assert (await client.get(f"/v1/models/{name}")).json()["id"] == name
        assert (await client.get("/v1/models/org%2Fsome%20model")).json()["id"] == "org/some model"
        missing = await client.get("/v1/models/org/none")
        assert missing.status_code == 404
        assert missing.json()["error"]["code"] == "model_not_found"
        assert "m, org/some model" in missing.json()["error"]["message"]


async def test_a_name_that_two_providers_serve_is_listed_once(discovery: Discovery, script: Scripts) -> None:
    script("a")
    script("b")
    config = scripted()
    config["providers"]["inference"].append(
        {"provider_id": "b", "provider_type": "scripted", "config": {"script": "b"}}
    )
    async with served_stack(config, discovery) as (_, client):
        listed = (await client.get("/v1/models")).json()["data"]
        assert [(model["id"], model["owned_by"]) for model in listed] == [("m", "a"), ("b/m", "b")]
        assert (await client.get("/v1/models/b/m")).json() == listed[1]
        await client.post("/models/register", json={"model": {"identifier": "m", "provider_id": "b"}})
        listed = (await client.get("/v1/models")).json()["data"]
        assert {(model["id"], model["owned_by"]) for model in listed} == {("a/m", "a"), ("m", "b")}


async def test_a_model_whose_provider_is_down_is_not_listed(discovery: Discovery, script: Scripts) -> None:
    script("a")
    config = scripted() | {"models": [{"identifier": "declared", "provider_id": "a"}]}
    async with served_stack(config, discovery) as (stack, client):
        assert [m["id"] for m in (await client.get("/v1/models")).json()["data"]] == ["m", "declared"]
        stack.instances["inference"][0].status = type(stack.instances["inference"][0].status).down
        assert (await client.get("/v1/models")).json()["data"] == []


async def test_moderations(discovery: Discovery, script: Scripts) -> None:
    script("a")
    shields = {"words": ["bomb"]}
    safety = [{"provider_id": "s", "provider_type": "remote::sample", "config": {"shields": shields}}]
    async with served_stack(scripted(safety=safety), discovery) as (_, client):
        made = (await client.post("/v1/moderations", json={"input": ["a bomb", "a cake"]})).json()
        assert [result["flagged"] for result in made["results"]] == [True, False]
        assert made["model"] == "words"
        parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "bomb"}]
        assert len((await client.post("/v1/moderations", json={"input": parts})).json()["results"]) == 1
        unknown = await client.post("/v1/moderations", json={"input": "x", "model": "omni-moderation-latest"})
        assert (unknown.status_code, unknown.json()["error"]["param"]) == (404, "model")
        shields["more"] = ["x"]
    async with served_stack(scripted(safety=safety), discovery) as (_, client):
        several = await client.post("/v1/moderations", json={"input": "x"})
        assert several.status_code == 400
        assert "served: words, more" in several.json()["error"]["message"]


async def test_routes_that_are_not_there(discovery: Discovery, script: Scripts) -> None:
    script("a")
    async with served_stack(scripted(), discovery) as (_, client):
        for path in ("/v1/moderations", "/v1/responses", "/v1/models/"):
            reply = await client.post(path, json={})
            assert (reply.status_code, reply.json()["error"]["type"]) == (404, "invalid_request_error"), path
        wrong = await client.post("/v1/models", json={})
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET")
        head = await client.head("/v1/models")
        assert (head.status_code, head.content) == (200, b"")
        foreign = await client.post(CHAT, json=TO_M, headers={"Origin": "http://elsewhere.example"})
        assert foreign.status_code == 403


async def test_the_surface_is_in_the_openapi_document(discovery: Discovery, script: Scripts) -> None:
    script("a")
    async with served_stack(scripted(), discovery) as (_, client):
        document = (await client.get("/openapi.json")).json()
        chat = document["paths"]["/v1/chat/completions"]["post"]
        schema = chat["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert "messages" in document["components"]["schemas"][schema]["required"]
        assert "/v1/moderations" not in document["paths"]
        *_, name = document["paths"]["/v1/models/{model}"]["get"]["parameters"]
        assert (name["name"], name["in"]) == ("model", "path")


@pytest.mark.parametrize(
    ("asks", "param"), [({"prompt": ["x"] * 2049}, "prompt"), ({"prompt": ["x"] * 20, "n": 128}, "prompt")]
)
async def test_one_request_cannot_be_very_many_calls(
    discovery: Discovery, script: Scripts, asks: dict[str, Any], param: str
) -> None:
    a = script("a")
    async with served_stack(scripted(), discovery) as (_, client):
        reply = await client.post("/v1/completions", json={"model": "m", **asks})
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == param
        assert "one request may have 2048" in reply.json()["error"]["message"]
    assert [name for name, _ in a.calls if name == "completion"] == []


async def test_many_prompts_are_answered_in_their_order(discovery: Discovery, script: Scripts) -> None:
    a = script("a")
    async with served_stack(scripted(), discovery) as (_, client):
        asks = {"model": "m", "prompt": [f"{number}" for number in range(300)]}
        reply = (await client.post("/v1/completions", json=asks)).json()
        assert [choice["index"] for choice in reply["choices"]] == list(range(300))
    asked = [arguments["content"] for name, arguments in a.calls if name == "completion"]
    assert sorted(asked) == sorted(asks["prompt"])
