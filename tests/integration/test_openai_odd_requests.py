"""Requests to `/v1` that are odd: forwarded ones are judged by the backend alone, translated ones by us, by name."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from backends.scripted_http import ScriptedHttp, answer, served_by
from scripted_stacks import Scripts
from served_stack import served_stack

from llamastack.stack.discovery import Discovery

pytestmark = pytest.mark.anyio
CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]
REPLY = {
    "id": "1",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
}


@asynccontextmanager
async def before(backend: ScriptedHttp, **config: Any) -> AsyncIterator[httpx.AsyncClient]:
    backend.default = answer(200, REPLY)
    async with served_stack({"providers": {"inference": [served_by(backend, **config)]}}) as (_, client):
        yield client


@asynccontextmanager
async def translating(discovery: Discovery) -> AsyncIterator[httpx.AsyncClient]:
    provider = {"provider_id": "a", "provider_type": "scripted", "config": {"script": "a"}}
    async with served_stack({"providers": {"inference": [provider]}}, discovery) as (_, client):
        yield client


# ---- forwarded -------------------------------------------------------------------------------------------------------

ODD: list[dict[str, Any]] = [
    {"messages": [{"role": "critic", "content": "x"}]},
    {"messages": "not a list"},
    {"messages": []},
    {"messages": [{"role": "user", "content": None, "reasoning_content": "x"}]},
    {"max_tokens": -1},
    {"max_tokens": "many"},
    {"temperature": 101, "top_p": -3, "n": 1000, "seed": 2**70, "stop": {"a": 1}, "logprobs": 5, "top_logprobs": "all"},
    {"tools": "all", "tool_choice": 7, "response_format": "json", "stream_options": [], "logit_bias": [[1, 2]]},
    {"stream": None, "stop": None, "encoding_format": None, "stream_options": {"include_usage": True}},
    {"own_extension": {"model": "far/m", "x": [1, 2.50]}},
]


@pytest.mark.parametrize("model", ["m", "p/m"])
@pytest.mark.parametrize("odd", ODD, ids=lambda odd: ",".join(odd))
async def test_a_backend_judges_what_is_forwarded(
    scripted_backend: ScriptedHttp, odd: dict[str, Any], model: str
) -> None:
    async with before(scripted_backend) as client:
        asked = {"model": model, "messages": HELLO, **odd}
        reply = await client.post(CHAT, json=asked)
        assert (reply.status_code, reply.json()["id"]) == (200, "1")
        assert scripted_backend.last("/chat/completions").json == {**asked, "model": "m"}


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"messages": HELLO}, "model"),
        ({"model": None, "messages": HELLO}, "model"),
        ({"model": "", "messages": HELLO}, "model"),
        ({"model": 7, "messages": HELLO}, "model"),
        ({"model": "m", "messages": HELLO, "stream": "yes"}, "stream"),
        ({"model": "m", "messages": HELLO, "stream": 1}, "stream"),
    ],
)
async def test_what_is_needed_to_forward_a_request(
    scripted_backend: ScriptedHttp, asked: dict[str, Any], param: str
) -> None:
    async with before(scripted_backend) as client:
        reply = await client.post(CHAT, json=asked)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("body", [b"", b"[]", b'"x"', b"{", b'{"model":"m","x":NaN}', b"[" * 10_000, b"\xff", b"null"])
async def test_what_is_no_json_object(scripted_backend: ScriptedHttp, body: bytes) -> None:
    async with before(scripted_backend) as client:
        reply = await client.post(CHAT, content=body)
        assert reply.status_code == 400
        assert reply.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens", "max_new_tokens"])
async def test_the_longest_reply_by_the_name_that_the_backend_has(scripted_backend: ScriptedHttp, field: str) -> None:
    async with before(scripted_backend, max_tokens_field=field) as client:
        body = (
            b'{"x":{"max_tokens" : 1},  "max_tokens" : 5,"model":"p/m", "reasoning_effort":"low",'
            b'"messages":[{"role":"user","content":"\\"max_tokens\\": 7"}], "logit_bias":{"1":2}, "y": 1.50}'
        )
        assert (await client.post(CHAT, content=body)).status_code == 200
        wanted = body.replace(
            b'"max_tokens" : 5', f'"{field}"'.encode() + (b" : 5" if field == "max_tokens" else b": 5")
        )
        assert scripted_backend.last("/chat/completions").body == wanted.replace(b"p/m", b"m")


async def test_the_longest_reply_by_two_names(scripted_backend: ScriptedHttp) -> None:
    async with before(scripted_backend, max_tokens_field="max_completion_tokens") as client:
        both = {"model": "m", "messages": HELLO, "max_tokens": 5, "max_completion_tokens": 6}
        reply = await client.post(CHAT, json=both)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "max_tokens")
        # A null is as if it were left out.
        assert (await client.post(CHAT, json={**both, "max_tokens": None})).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"p/m","messages":[],"metadata":[{"model":"p/m"},{"model":"x"}]}',
        b'{"messages":[{"role":"user","content":"\\"model\\":\\"p/m\\""}],"\\u006dodel" :\t"p/m"}',
        b'{"model":"x","messages":[],"model":"p/m"}',
    ],
)
async def test_the_model_of_the_body_is_the_only_thing_that_changes(
    scripted_backend: ScriptedHttp, body: bytes
) -> None:
    async with before(scripted_backend) as client:
        assert (await client.post(CHAT, content=body)).status_code == 200
        sent = scripted_backend.last("/chat/completions").body
        assert json.loads(sent) == {**json.loads(body), "model": "m"}
        assert len(sent) == len(body) - len("p/")


# ---- translated ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "fields", "param"),
    [
        (CHAT, {"messages": [{"role": "critic", "content": "x"}]}, "messages[0].role"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        (CHAT, {"max_tokens": -1}, "max_tokens"),
        (CHAT, {"max_tokens": 2**31}, "max_tokens"),
        (CHAT, {"max_tokens": 10**30}, "max_tokens"),
        (CHAT, {"max_completion_tokens": 2**31}, "max_completion_tokens"),
        (CHAT, {"temperature": 101}, "temperature"),
        (CHAT, {"temperature": -1}, "temperature"),
        (CHAT, {"temperature": 1e308}, "temperature"),
        (CHAT, {"top_p": 1.5}, "top_p"),
        (CHAT, {"n": 0}, "n"),
        (CHAT, {"n": 129}, "n"),
        (CHAT, {"seed": 2**64}, "seed"),
        (CHAT, {"seed": 1.5}, "seed"),
        (CHAT, {"logprobs": True, "top_logprobs": 101}, "top_logprobs"),
        (CHAT, {"frequency_penalty": 3}, "frequency_penalty"),
        (CHAT, {"presence_penalty": "x"}, "presence_penalty"),
        (CHAT, {"logit_bias": {"1": 1000}}, "logit_bias.1"),
        (CHAT, {"min_p": -1}, "min_p"),
        (CHAT, {"top_k": 2**40}, "top_k"),
        (CHAT, {"repetition_penalty": -1}, "repetition_penalty"),
        (CHAT, {"stop": [1]}, "stop"),
        (CHAT, {"no_such_field": 1}, "no_such_field"),
        (CHAT, {"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"schema": []}}}, "response_format"),
        ("/v1/completions", {"logprobs": 101}, "logprobs"),
        ("/v1/completions", {"temperature": 101}, "temperature"),
        ("/v1/completions", {"max_tokens": 2**31}, "max_tokens"),
        ("/v1/completions", {"best_of": 3}, "best_of"),
        ("/v1/completions", {"prompt": [1.5] * 300_000}, "prompt"),
        ("/v1/embeddings", {"input": "a", "dimensions": 2}, "dimensions"),
        ("/v1/embeddings", {"input": "a", "dimensions": 0}, "dimensions"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}, "encoding_format"),
    ],
)
async def test_what_does_not_fit_is_named(
    discovery: Discovery, script: Scripts, route: str, fields: Mapping[str, Any], param: str
) -> None:
    script("a")
    prompt = {CHAT: {"messages": HELLO}, "/v1/completions": {"prompt": "x"}}.get(route, {})
    async with translating(discovery) as client:
        reply = await client.post(route, json={"model": "m", **prompt, **fields})
        error = reply.json()["error"]
        assert (reply.status_code, error["type"]) == (400, "invalid_request_error")
        assert error["param"].startswith(param)


@pytest.mark.parametrize(
    ("route", "optional"),
    [
        (
            CHAT,
            "stream stream_options n max_tokens max_completion_tokens temperature top_p top_k min_p seed stop tools "
            "tool_choice parallel_tool_calls response_format logprobs top_logprobs frequency_penalty presence_penalty "
            "repetition_penalty logit_bias user metadata store audio modalities functions function_call no_such_field",
        ),
        (
            "/v1/completions",
            "stream stream_options n max_tokens temperature top_p seed stop logprobs echo suffix best_of user",
        ),
        ("/v1/embeddings", "encoding_format dimensions user"),
    ],
)
async def test_null_is_as_if_it_were_left_out(discovery: Discovery, script: Scripts, route: str, optional: str) -> None:
    done = script("a")
    needed = {CHAT: {"messages": HELLO}, "/v1/completions": {"prompt": "x"}}.get(route, {"input": ["x"]})
    async with translating(discovery) as client:
        assert (await client.post(route, json={"model": "m", **needed})).status_code == 200
        plain = done.calls[-1]
        nothing = dict.fromkeys(optional.split())
        assert (await client.post(route, json={"model": "m", **needed, **nothing})).status_code == 200
        assert done.calls[-1] == plain


async def test_the_dimensions_that_a_model_has(discovery: Discovery, script: Scripts) -> None:
    done = script("a")
    async with translating(discovery) as client:
        asked = {"model": "m", "input": ["x", "y"]}
        for size, status in ((1, 200), (2, 400)):  # as its reply shows
            assert (await client.post("/v1/embeddings", json={**asked, "dimensions": size})).status_code == status
    done.metadata = {"embedding_dimension": 384}
    async with translating(discovery) as client:
        reply = await client.post("/v1/embeddings", json={**asked, "dimensions": 256})
        assert "384 dimensions" in reply.json()["error"]["message"]


async def test_n_answers_have_seeds_of_their_own(discovery: Discovery, script: Scripts) -> None:
    done = script("a")
    async with translating(discovery) as client:
        asked = {"model": "m", "messages": HELLO, "n": 3, "seed": 2**32 - 2, "temperature": 0.5}
        assert (await client.post(CHAT, json=asked)).status_code == 200
    seeds = [arguments["sampling_params"].seed for name, arguments in done.calls if name == "chat_completion"]
    assert sorted(seeds) == [0, 1, 2**32 - 2]
