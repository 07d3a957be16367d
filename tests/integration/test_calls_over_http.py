"""Trace context, time limits, hooks around calls and call events over the real server, translated and forwarded."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest
from access_fake import AROUND, LISTENING
from backends.scripted_http import HOLD, ScriptedHttp, answer, chunked, scripted_http, served_by, sse
from scripted_fake import SCRIPTS
from scripted_stacks import Scripts
from served_stack import served_script, served_stack

from llamastack.provider.context import current_context
from llamastack.provider.errors import ProviderUnavailableError
from llamastack.provider.provider_call import Proceed, ProviderCall
from llamastack.stack.discovery import Discovery

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("calls_plugin")]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
PATHS = ("/inference/chat_completion", "/v1/chat/completions")
REPLY = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Paris"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
}
CHUNK = {
    "id": "1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "delta": {"content": "Paris"}, "finish_reason": None}],
}
LAST = {**CHUNK, "choices": [], "usage": REPLY["usage"]}


@pytest.fixture
async def http(discovery: Discovery, script: Scripts) -> AsyncIterator[httpx.AsyncClient]:
    script("a")
    async with served_script(discovery) as client:
        yield client


@pytest.fixture
async def far(discovery: Discovery, scripted_backend: ScriptedHttp) -> AsyncIterator[httpx.AsyncClient]:
    """Of a stack before `scripted_backend`, which speaks OpenAI's API."""
    scripted_backend.default = answer(200, REPLY)
    async with served_stack({"providers": {"inference": [served_by(scripted_backend)]}}, discovery) as (_, client):
        yield client


async def test_traceparent_goes_on_to_the_backend(far: httpx.AsyncClient, scripted_backend: ScriptedHttp) -> None:
    async def sent(headers: list[tuple[str, str]], path: str) -> str | None:
        assert (await far.post(path, json=CHAT, headers=headers)).status_code == 200
        return scripted_backend.received[-1].headers.get("traceparent")

    for path in PATHS:
        assert await sent([("traceparent", TRACE)], path) == TRACE
        assert await sent([], path) is None
        assert await sent([("traceparent", "nonsense")], path) is None
        assert await sent([("traceparent", TRACE)] * 2, path) is None


@pytest.mark.parametrize("path", PATHS)
async def test_a_client_sets_a_time_limit(http: httpx.AsyncClient, path: str) -> None:
    own = SCRIPTS["a"]
    own.piece_delay_s = 30
    limited = {"X-Request-Timeout": "0.1"}
    reply = await http.post(path, json=CHAT, headers=limited)
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "provider_timeout")
    assert "time limit of this request" in reply.text
    stream = await http.post(path, json={**CHAT, "stream": True}, headers=limited)
    assert (stream.status_code, own.in_flight) == (200, 0)
    assert "time limit of this request" in stream.text
    own.piece_delay_s = 0
    assert (await http.post(path, json=CHAT, headers={"X-Request-Timeout": "30"})).status_code == 200


@pytest.mark.parametrize("given", ["0", "-1", "soon", "1e3", "inf", ""])
async def test_a_time_limit_is_a_number(http: httpx.AsyncClient, given: str) -> None:
    reply = await http.post(PATHS[0], json=CHAT, headers={"X-Request-Timeout": given})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "X-Request-Timeout")


async def test_a_time_limit_ends_a_forwarded_request(far: httpx.AsyncClient, scripted_backend: ScriptedHttp) -> None:
    scripted_backend.answers.append([HOLD])
    limited = {"X-Request-Timeout": "0.2"}
    assert (await far.post(PATHS[1], json=CHAT, headers=limited)).status_code == 504
    scripted_backend.answers.append(chunked(b"data: " + json.dumps(CHUNK).encode() + b"\n\n", HOLD))
    stream = await far.post(PATHS[1], json={**CHAT, "stream": True}, headers=limited)
    assert stream.status_code == 200
    assert "Paris" in stream.text
    assert "time limit of this request" in stream.text
    assert [event.status for event in LISTENING.events] == ["started", "cancelled"] * 2


async def test_hooks_see_native_and_translated_calls_and_streams(http: httpx.AsyncClient) -> None:
    for path in PATHS:
        for stream in (False, True):
            reply = await http.post(path, json={**CHAT, "stream": stream}, headers={"X-Request-ID": f"{path}{stream}"})
            assert reply.status_code == 200
    assert [(call.method, call.stream, call.body) for call in AROUND.calls] == [
        ("chat_completion", False, None),
        ("chat_completion", True, None),
    ] * 2
    assert [event.status for event in LISTENING.events] == ["started", "ok"] * 4
    assert all(event.request_id and event.provider_id == "a" for event in LISTENING.events)


async def test_hooks_see_and_change_forwarded_bodies(far: httpx.AsyncClient, scripted_backend: ScriptedHttp) -> None:
    body = {**CHAT, "model": "p/m", "my_field": [1]}
    assert (await far.post(PATHS[1], json=body)).json() == REPLY
    [call] = AROUND.calls
    assert (call.api, call.method, call.identifier, call.provider_id) == ("inference", "chat_completion", "m", "p")
    assert json.loads(call.body or b"") == body
    assert call.request == body
    AROUND.does = lambda call, proceed: proceed(call.replaced(request={**call.request, "temperature": 0.5}))
    assert (await far.post(PATHS[1], json=body)).json() == REPLY
    assert scripted_backend.received[-1].json == {**body, "model": "m", "temperature": 0.5}
    ended = LISTENING.events[-1]
    assert (ended.status, ended.input_tokens, ended.output_tokens) == ("ok", 3, 4)


async def test_forwarded_streams_pass_hooks_and_are_counted(
    far: httpx.AsyncClient, scripted_backend: ScriptedHttp
) -> None:
    scripted_backend.answers.append(sse(CHUNK, 0.02, LAST, "[DONE]"))

    async def louder(call: ProviderCall, proceed: Proceed) -> Any:
        blocks = await proceed(call)

        async def loud() -> AsyncIterator[bytes]:
            async for block in blocks:
                yield block.replace(b"Paris", b"PARIS")

        return loud()

    AROUND.does = louder
    stream = await far.post(PATHS[1], json={**CHAT, "stream": True})
    assert re.findall("paris", stream.text, re.IGNORECASE) == ["PARIS"]
    assert stream.text.endswith("data: [DONE]\n\n")
    _, ended = LISTENING.events
    assert (ended.status, ended.input_tokens, ended.output_tokens) == ("ok", 3, 4)
    assert ended.first_piece_s is not None
    assert ended.duration_s is not None
    assert ended.first_piece_s < ended.duration_s


async def test_a_failing_hook_and_a_refusal_in_openai_form(far: httpx.AsyncClient) -> None:
    async def failing(call: ProviderCall, proceed: Proceed) -> Any:
        raise ValueError("s3cret")

    AROUND.does = failing
    for path in PATHS:
        reply = await far.post(path, json=CHAT)
        assert reply.status_code == 500
        assert "plugin acme-calls:around failed in llamastack_around_call" in reply.text
        assert "s3cret" not in reply.text


async def test_a_forwarded_call_goes_to_another_instance(
    discovery: Discovery, scripted_backend: ScriptedHttp, script: Scripts
) -> None:
    """One that forwards too, or one that knows the native protocol alone, for which the request is translated."""
    script("a")
    chosen: list[str] = []
    scripted_backend.default = answer(503, {"error": {"message": "overloaded"}})

    async def elsewhere(call: ProviderCall, proceed: Proceed) -> Any:
        try:
            return await proceed(call)
        except ProviderUnavailableError:
            return await proceed(call.replaced(provider_id=chosen[-1]))

    AROUND.does = elsewhere
    with scripted_http() as second:
        second.default = answer(200, REPLY)
        config = [
            served_by(scripted_backend),
            {**served_by(second), "provider_id": "q"},
            {"provider_id": "a", "provider_type": "scripted", "config": {"script": "a"}},
        ]
        async with served_stack({"providers": {"inference": config}}, discovery) as (_, client):
            for target, text in (("q", "Paris"), ("a", "a")):
                chosen.append(target)
                reply = await client.post(PATHS[1], json=CHAT)
                assert reply.status_code == 200, reply.text
                assert reply.json()["choices"][0]["message"]["content"] == text


async def test_a_call_in_openai_form_of_a_provider_that_is_down_reaches_the_hooks(
    discovery: Discovery, scripted_backend: ScriptedHttp, script: Scripts
) -> None:
    """The hook may choose another instance; without one, the error is that the provider is down."""
    script("a", serves=["m"], fail_start=ConnectionError("gone"))
    registered = {"identifier": "m", "provider_id": "a"}
    scripted_backend.default = answer(200, REPLY)
    config = [{"provider_id": "a", "provider_type": "scripted", "config": {"script": "a"}}, served_by(scripted_backend)]
    run = {"providers": {"inference": config}, "models": [registered]}
    own_field = {**CHAT, "my_field": [1]}  # a request that has no native form
    async with served_stack(run, discovery) as (_, client):
        down = await client.post(PATHS[1], json=own_field)
        assert (down.status_code, "is down" in down.text) == (503, True)
        AROUND.does = lambda call, proceed: proceed(call.replaced(provider_id="p"))
        reply = await client.post(PATHS[1], json=own_field)
        assert (reply.status_code, reply.json()) == (200, REPLY)


async def test_two_requests_at_once_keep_their_own_context(far: httpx.AsyncClient) -> None:
    seen: dict[str, str | None] = {}
    both = anyio.Event()

    async def meeting(call: ProviderCall, proceed: Proceed) -> Any:
        before = current_context()
        if seen:
            both.set()
        seen[before.request_id or ""] = before.traceparent
        await both.wait()
        assert current_context() is before
        return await proceed(call)

    AROUND.does = meeting
    traces = {name: TRACE.replace("b7ad", name) for name in ("aaaa", "bbbb")}
    async with anyio.create_task_group() as group:
        for name, trace in traces.items():
            headers = {"X-Request-ID": name, "traceparent": trace}
            group.start_soon(lambda sent=headers: far.post(PATHS[1], json=CHAT, headers=sent))
    assert seen == traces
