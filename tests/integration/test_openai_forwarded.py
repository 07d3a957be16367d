"""`/v1` over the real server, forwarded to a real backend that speaks OpenAI's API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable

import anyio
import pytest
from backends.fault_proxy import FaultProxy
from backends.llama_server import MODEL, LlamaServer
from backends.openai_front import events, refusal
from calls_of_v1 import ASK, CHAT, LONG, Front, before, consume
from openai_bodies import data_of
from served_stack import served_stack
from starlette.responses import Response, StreamingResponse

pytestmark = pytest.mark.anyio


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


async def test_a_route_that_the_backend_lacks_is_no_wrong_url(front: Front) -> None:
    backend, url = front()
    async with served_stack(before(url)) as (_, client):
        for path, body in ((CHAT, ASK), (CHAT, {**ASK, "stream": True}), ("/v1/embeddings", {"input": ["a"]})):
            backend.answers.append(Response('{"detail":"Not Found"}', 404, media_type="application/json"))
            reply = await client.post(path, json={"model": MODEL, **body})
            assert reply.status_code == 400, reply.text
            cannot = "does not embed" if "input" in body else "does not chat"
            assert f"'{MODEL}' {cannot}: " in reply.json()["error"]["message"]


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
