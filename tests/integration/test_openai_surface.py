"""`/v1` over the real server: forwarded to a real backend that speaks OpenAI's API, and translated for all others."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import httpx
import pytest
from backends.fault_proxy import FaultProxy
from backends.llama_server import MODEL, LlamaServer
from backends.openai_front import OpenAIFront, events, refusal
from openai_bodies import data_of
from scripted_stacks import Scripts
from served_stack import served_stack
from starlette.responses import Response, StreamingResponse

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


# ---- forwarded -------------------------------------------------------------------------------------------------------


async def test_what_is_forwarded_is_not_touched(front: Front) -> None:
    backend, url = front()
    async with served_stack(before(url)) as (_, client):
        asked = {**ASK, "min_p": 0.05, "cache_prompt": False, "seed": 2**53 + 1, "stream": None}
        written = json.dumps(asked, indent=1).replace("0.05", "0.0500").encode()
        answer = b'{"choices" : [{}], "caf\\u00e9": 1.10, "x":1e400}'
        backend.answers.append(Response(answer, media_type="application/json"))
        reply = await client.post(CHAT, content=written)
        assert backend.last("/chat/completions").raw == written
        assert (reply.status_code, reply.content) == (200, answer)
        real = await client.post(CHAT, content=written)
        assert real.json()["usage"]["completion_tokens"] > 0


async def test_only_the_name_of_the_model_is_changed(front: Front) -> None:
    backend, url = front()
    async with served_stack(before(url, models={"public": MODEL})) as (_, client):
        for name in ("public", f"far/{MODEL}", "far/public"):
            body = b'{ "model":"%b" ,"messages":[{"role":"user","content":"Hi"}],"min_p":0.10,"max_tokens":2}'
            reply = await client.post(CHAT, content=body % name.encode())
            assert reply.status_code == 200, reply.text
            assert backend.last("/chat/completions").raw == body % MODEL.encode()


async def test_a_stream_is_forwarded_to_its_end(front: Front) -> None:
    _, url = front()
    async with served_stack(before(url)) as (_, client):
        asked = {**ASK, "stream": True, "stream_options": {"include_usage": True}}
        reply = await client.post(CHAT, json=asked)
        assert reply.headers["content-type"].startswith("text/event-stream")
        *chunks, done = data_of(reply.text)
        assert done == "[DONE]"
        assert chunks[-1]["usage"]["completion_tokens"] > 0
        assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])


async def test_the_other_routes_are_forwarded(front: Front) -> None:
    backend, url = front()
    async with served_stack(before(url)) as (_, client):
        text = await client.post("/v1/completions", json={"model": MODEL, "prompt": "Paris is", "max_tokens": 4})
        assert text.json()["choices"][0]["text"]
        vectors = await client.post("/v1/embeddings", json={"model": MODEL, "input": ["a", "b"], "dimensions": None})
        assert len(vectors.json()["data"]) == 2
        assert backend.last("/embeddings").body == {"model": MODEL, "input": ["a", "b"], "dimensions": None}


async def test_a_refusal_of_the_backend_is_told_in_openais_shape(front: Front) -> None:
    backend, url = front()
    async with served_stack(before(url)) as (_, client):
        backend.answers.append(refusal(400, "max_tokens is too large", param="max_tokens"))
        error = (await client.post(CHAT, json=ASK)).json()["error"]
        assert (error["type"], error["param"], error["provider_id"]) == ("invalid_request_error", "max_tokens", "far")
        backend.answers.append(refusal(400, "not that", code="content_policy_violation"))
        assert (await client.post(CHAT, json=ASK)).json()["error"]["code"] == "content_policy_violation"
        for stream in (True, False):
            before_it = len(backend.seen)
            backend.answers.append(refusal(429, "slow down", retry_after=1))
            reply = await client.post(CHAT, json={**ASK, "stream": stream})
            assert (reply.status_code, reply.headers["retry-after"]) == (429, "1")
            assert reply.json()["error"]["code"] == "rate_limit_exceeded"
            assert len(backend.seen) == before_it + 1  # its client tries again, not the stack


async def test_a_reply_that_is_none_is_a_502(front: Front) -> None:
    backend, url = front()
    async with served_stack(before(url)) as (_, client):
        for content in (b"", b"[]", b"<html>", b'{"error": {"message": "out of memory"}}'):
            backend.answers.append(Response(content, media_type="application/json"))
            reply = await client.post(CHAT, json=ASK)
            assert (reply.status_code, reply.json()["error"]["type"]) == (502, "server_error"), content


async def test_a_prompt_that_is_too_long_is_said_of_the_field_that_holds_it(front: Front) -> None:
    _, url = front()
    async with served_stack(before(url)) as (_, client):
        long = "word " * 5000
        for path, body in (
            (CHAT, {**ASK, "messages": [{"role": "user", "content": long}]}),
            ("/v1/completions", {"model": MODEL, "prompt": long}),
        ):
            error = (await client.post(path, json=body)).json()["error"]
            assert error["code"] == "context_length_exceeded"
            assert error["param"] == ("messages" if path == CHAT else "prompt")


async def test_a_stream_that_fails_is_not_ended_in_silence(front: Front) -> None:
    backend, url = front()
    begun = json.dumps({"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}]})
    ended = json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    failed = json.dumps({"error": {"message": "out of memory", "code": 500}})
    async with served_stack(before(url)) as (_, client):
        backend.answers.append(events(begun, failed, done=False))
        chunk, error = data_of((await client.post(CHAT, json={**ASK, "stream": True})).text)
        assert chunk == json.loads(begun)
        assert "out of memory" in error["error"]["message"]
        assert error["error"]["provider_id"] == "far"
        backend.answers.append(events(begun, done=False))
        assert "before the reply was complete" in (await client.post(CHAT, json={**ASK, "stream": True})).text
        # A backend that merely has no word for the end has ended in order.
        backend.answers.append(events(begun, ended, done=False))
        assert data_of((await client.post(CHAT, json={**ASK, "stream": True})).text)[-1] == "[DONE]"


async def test_the_connection_of_a_stream_is_used_again_though_its_end_comes_late(
    front: Front, faulty: Callable[..., FaultProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamastack_adapters.event_streams._DRAIN_TIMEOUT_S", 5.0)  # however busy the machine is
    backend, url = front()
    proxy = faulty(url.removesuffix("/v1"))

    async def late() -> AsyncIterator[bytes]:
        chunk = {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]}
        yield f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode()
        await anyio.sleep(0.05)

    native = {"model": MODEL, "messages": ASK["messages"], "stream": True}
    async with served_stack(before(f"{proxy.url}/v1")) as (_, client):
        before_it = proxy.connections
        for path, body in ((CHAT, {**ASK, "stream": True}), ("/inference/chat_completion", native)) * 2:
            backend.answers.append(StreamingResponse(late(), media_type="text/event-stream"))
            assert (await client.post(path, json=body)).status_code == 200
        assert proxy.connections == before_it


async def test_a_connection_that_breaks_in_mid_stream(front: Front, faulty: Callable[..., FaultProxy]) -> None:
    _, url = front()
    proxy = faulty(url.removesuffix("/v1"))
    async with served_stack(before(f"{proxy.url}/v1")) as (_, client):
        proxy.drop_idle()
        proxy.reset_after = 1500
        *chunks, last = data_of((await client.post(CHAT, json={**LONG, "stream": True})).text)
        assert chunks
        assert last["error"]["code"] == "backend_error"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("size", [0, 200_000])
async def test_a_client_that_goes_away_ends_the_work_of_the_backend(
    front: Front, llama: LlamaServer, stream: bool, size: int
) -> None:
    backend, url = front()
    body = {**LONG, "stream": stream, "user": "u" * size}
    async with served_stack(before(url)) as (_, client):
        async with anyio.create_task_group() as calling:
            calling.start_soon(consume, client, body)
            while not await anyio.to_thread.run_sync(llama.working_on):
                await anyio.sleep(0.01)
            calling.cancel_scope.cancel()
        with anyio.fail_after(10):
            while not backend.disconnects:
                await anyio.sleep(0.01)
        assert await anyio.to_thread.run_sync(llama.becomes_idle)


async def test_a_clients_own_key_goes_to_the_backend_and_nowhere_else(front: Front) -> None:
    backend, url = front(keys={"good-key-1"})
    async with served_stack(before(url, models={"named": MODEL})) as (_, client):
        asked = {**ASK, "model": "named"}
        header = {"X-LlamaStack-ProviderData": '{"openai_api_key": "good-key-1"}', "Authorization": "Bearer ours"}
        assert (await client.post(CHAT, json=asked, headers=header)).status_code == 200
        assert backend.seen[-1].headers["authorization"] == "Bearer good-key-1"
        bad = {"X-LlamaStack-ProviderData": '{"openai_api_key": "bad-key-22"}'}
        reply = await client.post(CHAT, json=asked, headers=bad)
        assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
        assert "bad-key-22" not in reply.text


async def test_a_field_that_the_backend_has_in_another_form_is_translated(front: Front) -> None:
    backend, url = front()
    together = before(url, "remote::together", api_key="k")
    async with served_stack(together) as (_, client):
        await client.post(CHAT, json={**ASK, "top_p": 0.9})
        assert backend.last("/chat/completions").body == {**ASK, "top_p": 0.9}
        await client.post(CHAT, json={**ASK, "logprobs": True, "top_logprobs": 2})
        assert backend.last("/chat/completions").body["logprobs"] == 2


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
