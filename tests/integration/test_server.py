"""The real server over loopback: routes, errors, streams, clients that hang up, ids and the access log."""

from __future__ import annotations

import gc
import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from scripted_stacks import Scripts
from served_stack import served_stack

from llamastack.stack import Stack
from llamastack.stack.discovery import Discovery
from llamastack_server.uvicorn_server import BindError, bind, serve, url_of

pytestmark = pytest.mark.anyio
Serving = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def serving(discovery: Discovery) -> Serving:
    """Serve a stack of one scripted provider on a free port; gives an HTTP client of it."""

    @asynccontextmanager
    async def make(**run: Any) -> AsyncIterator[httpx.AsyncClient]:
        config: dict[str, Any] = {
            "providers": {
                "inference": [{"provider_id": "a", "provider_type": "scripted", "config": {"script": "a"}}],
                "memory": [{"provider_id": "mem", "provider_type": "remote::sample"}],
                "agents": [{"provider_id": "ag", "provider_type": "remote::sample"}],
            },
            **run,
        }
        async with served_stack(config, discovery) as (stack, client):
            client.stack = stack  # type: ignore[attr-defined]
            yield client

    return make


async def test_the_wire_form_of_a_chat(serving: Serving, script: Scripts) -> None:
    script("a")
    async with serving() as client:
        reply = await client.post("/inference/chat_completion", json=CHAT)
        assert reply.status_code == 200
        assert reply.json() == {
            "completion_message": {
                "role": "assistant",
                "content": "a",
                "stop_reason": "end_of_turn",
                "tool_calls": [],
            },
            "logprobs": None,
        }


async def test_a_stream_is_start_progress_complete(serving: Serving, script: Scripts) -> None:
    script("a", pieces=2)
    async with serving() as client:
        reply = await client.post("/inference/chat_completion", json={**CHAT, "stream": True})
        assert reply.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line[6:])["event"] for line in reply.text.split("\n\n") if line]
        assert [e["event_type"] for e in events] == ["start", "progress", "progress", "complete"]
        assert events[-1]["stop_reason"] == "end_of_turn"


async def test_the_first_piece_comes_before_the_last_is_made(serving: Serving, script: Scripts) -> None:
    a = script("a", pieces=1000, piece_delay_s=0.01)
    async with (
        serving() as client,
        client.stream("POST", "/inference/chat_completion", json={**CHAT, "stream": True}) as reply,
    ):
        async for line in reply.aiter_lines():
            assert line.startswith("data: ")
            assert a.in_flight == 1
            break


@pytest.mark.parametrize(
    ("body", "status", "param", "says"),
    [
        (b'{"model": ', 400, None, "the body is not JSON: EOF while parsing a value at line 1 column 10"),
        (b"[1]", 400, None, "the body must be a JSON object"),
        (b"[" * 20_000, 400, None, "the body is nested too deeply"),
        (b'{"model": "\xff"}', 400, None, "the body is not JSON: invalid unicode code point at line 1 column 12"),
        (b"", 400, "model", "model: required field is missing; messages: required field is missing"),
        ({**CHAT, "messages": []}, 400, "messages", "messages: List should have at least 1 item"),
        ({**CHAT, "mood": 1}, 400, "mood", "mood: unknown field"),
        ({**CHAT, "messages": [{"role": "robot"}]}, 400, "messages[0].role", "Input should be one of 'user', 'system'"),
        (
            {**CHAT, "sampling_params": {"strategy": "greedy", "top_k": "x"}},
            400,
            "sampling_params.top_k",
            "sampling_params.top_k: Input should be a valid integer",
        ),
        (
            {**CHAT, "messages": [{"role": "user", "content": ["a", {"image": 5}]}]},
            400,
            "messages[0].content[1].image",
            "messages[0].content",
        ),
        ({**CHAT, "model": "nope"}, 404, "model", "no model 'nope' is served. Served: m"),
    ],
)
async def test_bad_requests_are_told_where(
    serving: Serving, script: Scripts, body: Any, status: int, param: str | None, says: str
) -> None:
    script("a")
    async with serving() as client:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        reply = await client.post("/inference/chat_completion", content=content)
        error = reply.json()["error"]
        assert reply.status_code == status
        assert says in error["message"]
        if param != "messages[0].content[1].image":
            assert error.get("param") == param
        assert error["request_id"] == reply.headers["x-request-id"]


async def test_both_shapes_of_validation_errors(serving: Serving, script: Scripts) -> None:
    script("a")
    async with serving() as client:
        error = (await client.post("/inference/chat_completion", json={"model": 5})).json()["error"]
        assert [sorted(e) for e in error["detail"]["errors"]] == [["loc", "msg", "type"]] * 2


async def test_unknown_routes_methods_objects_and_providers(serving: Serving, script: Scripts) -> None:
    script("a")
    async with serving() as client:
        assert (await client.get("/nope")).status_code == 404
        refused = await client.get("/models/register")
        assert (refused.status_code, refused.json()["error"]["code"]) == (405, "method_not_allowed")
        for path in ("/models/get?identifier=x", "/memory_banks/get?identifier=x"):
            reply = await client.get(path)
            assert (reply.status_code, reply.content) == (200, b"null")
        for path in ("/models/get", "/models/get?identifier=x&identifier=y", "/models/get?nonsense=1"):
            assert (await client.get(path)).status_code == 400
        reply = await client.post("/memory/query", json={"bank_id": "nope", "query": "x"})
        assert (reply.status_code, reply.json()["error"]["param"]) == (404, "bank_id")
        reply = await client.post("/models/register", json={"model": {"identifier": "x", "provider_id": "nope"}})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "model.provider_id")
        assert [m["identifier"] for m in (await client.get("/models/list")).json()] == ["m"]


async def test_a_body_over_the_limit(serving: Serving, script: Scripts) -> None:
    a = script("a")

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000

    async with serving(server={"max_body_bytes": 10_000}) as client:
        big = {**CHAT, "messages": [{"role": "user", "content": "x" * 20_000}]}
        reply = await client.post("/inference/chat_completion", json=big)
        assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")
        reply = await client.post("/inference/chat_completion", content=endless())
        assert reply.status_code == 413
        assert [c for c in a.calls if c[0] == "chat_completion"] == []
        assert (await client.post("/inference/chat_completion", json=CHAT)).status_code == 200


async def test_provider_data_that_is_no_json_object(serving: Serving, script: Scripts) -> None:
    script("a")
    async with serving() as client:
        for header in ("not json, hunter2", "[1]"):
            reply = await client.post(
                "/inference/chat_completion", json=CHAT, headers={"X-LlamaStack-ProviderData": header}
            )
            assert (reply.status_code, reply.json()["error"]["param"]) == (400, "X-LlamaStack-ProviderData")
            assert "hunter2" not in reply.text


async def test_provider_data_of_one_request_does_not_reach_the_next(serving: Serving, script: Scripts) -> None:
    a = script("a")
    async with serving() as client:
        for headers in ({"X-LlamaStack-ProviderData": '{"scripted_api_key": "k"}'}, {}):
            await client.post("/inference/chat_completion", json=CHAT, headers=headers)
        seen = [data.scripted_api_key if data else None for name, data in a.calls if name == "request_data"]
        assert seen == ["k", None]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_hangs_up_cancels_the_provider(serving: Serving, script: Scripts, stream: bool) -> None:
    a = script("a", pieces=10_000, piece_delay_s=0.02 if stream else 60)
    async with serving() as client:
        with anyio.move_on_after(0.3):
            async with client.stream("POST", "/inference/chat_completion", json={**CHAT, "stream": stream}) as reply:
                async for _ in reply.aiter_lines():
                    pass
        with anyio.fail_after(5):
            while a.in_flight:
                await anyio.sleep(0.01)


async def test_a_failure_in_mid_stream_is_an_error_event(serving: Serving, script: Scripts) -> None:
    script("a", fail_after_pieces=1, fail_call=None)
    async with serving() as client:
        reply = await client.post("/inference/chat_completion", json={**CHAT, "stream": True})
        last = json.loads(reply.text.strip().split("\n\n")[-1][6:])
        assert (last["error"]["code"], last["error"]["provider_id"]) == ("internal_error", "a")


async def test_a_failure_before_the_first_piece_has_its_own_status(serving: Serving, script: Scripts) -> None:
    script("a", fail_call=httpx.ConnectError("refused"))
    async with serving() as client:
        reply = await client.post("/inference/chat_completion", json={**CHAT, "stream": True})
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "provider_unavailable")


async def test_request_ids_go_in_and_out_and_into_the_log(
    serving: Serving, script: Scripts, caplog: pytest.LogCaptureFixture
) -> None:
    script("a")
    with caplog.at_level(logging.INFO, logger="llamastack.access"):
        async with serving() as client:
            reply = await client.get("/health", headers={"X-Request-ID": "my-id.1"})
            assert reply.headers["x-request-id"] == "my-id.1"
            other = await client.get("/health", headers={"X-Request-ID": "bad id\twith spaces"})
            assert other.headers["x-request-id"] != "bad id\twith spaces"
    lines = [r.getMessage() for r in caplog.records if r.name == "llamastack.access"]
    assert lines[0].startswith("GET /health 200 ")


async def test_a_path_cannot_forge_lines_of_the_log(
    serving: Serving, script: Scripts, caplog: pytest.LogCaptureFixture
) -> None:
    script("a")
    with caplog.at_level(logging.INFO, logger="llamastack.access"):
        async with serving() as client:
            await client.get("/x%0a2026-01-01 forged")
    assert all("\n" not in record.getMessage() for record in caplog.records)


async def test_head_is_answered_like_get_without_the_body(serving: Serving, script: Scripts) -> None:
    script("a")
    async with serving() as client:
        reply = await client.head("/health")
        assert (reply.status_code, reply.content) == (200, b"")


async def test_openapi_and_docs(serving: Serving, script: Scripts) -> None:
    script("a")
    async with serving() as client:
        document = (await client.get("/openapi.json")).json()
        assert "/inference/chat_completion" in document["paths"]
        assert "/safety/run_shield" not in document["paths"]  # no provider, no route
        page = await client.get("/docs")
        assert "text/html" in page.headers["content-type"]
        assert "http" not in page.text.replace("http_", "").split("<style>")[0]  # nothing is fetched from elsewhere


async def test_agent_gets_take_query_or_body(serving: Serving, script: Scripts) -> None:
    script("a")
    async with serving() as client:

        async def post(path: str, body: Any) -> Any:
            reply = await client.post(path, json=body)
            assert reply.status_code == 200, reply.text
            return reply.json()

        config = {"model": "m", "instructions": "x", "enable_session_persistence": False, "max_infer_iters": 2}
        agent_id = (await post("/agents/create", {"agent_config": config}))["agent_id"]
        ids = {"agent_id": agent_id}
        ids["session_id"] = (await post("/agents/session/create", {**ids, "session_name": "s"}))["session_id"]
        turn = await post("/agents/turn/create", {**ids, "messages": CHAT["messages"]})
        query = f"agent_id={agent_id}&session_id={ids['session_id']}"
        session = await post(f"/agents/session/get?{query}", {"turn_ids": [turn["turn_id"]]})
        assert session["turns"] == [turn]
        assert await post(f"/agents/session/get?{query}", {}) == session
        turn_ids = {"agent_id": agent_id, "turn_id": turn["turn_id"]}
        assert (await client.get("/agents/turn/get", params=turn_ids)).json() == turn
        assert await post("/agents/turn/get", turn_ids) == turn
        twice = await client.post(f"/agents/session/get?{query}", json={"agent_id": agent_id})
        assert "'agent_id' is given twice" in twice.text
        await post("/agents/session/delete", ids)
        await post("/agents/delete", {"agent_id": agent_id})
        gone = await client.get("/agents/turn/get", params=turn_ids)
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")


async def test_a_port_in_use_is_said(serving: Serving) -> None:
    taken = bind("127.0.0.1", 0)
    with pytest.raises(BindError, match=r"cannot listen on 127\.0\.0\.1:\d+: Address already in use"):
        bind("127.0.0.1", taken.getsockname()[1])
    taken.close()
    with pytest.raises(BindError, match=r"host 'no\.such\.host\.invalid' cannot be resolved"):
        bind("no.such.host.invalid", 0)


@pytest.mark.parametrize("stream", [True, False])
async def test_what_is_not_done_when_the_drain_time_is_over_is_told(
    discovery: Discovery, script: Scripts, stream: bool
) -> None:
    a = script("a", pieces=10_000, piece_delay_s=0.05 if stream else 60)
    config = {
        "providers": {"inference": [{"provider_id": "a", "provider_type": "scripted", "config": {"script": "a"}}]},
        "server": {"drain_timeout_s": 1},
    }
    listening = bind("127.0.0.1", 0)
    ready = anyio.Event()
    async with Stack.from_config(config, discovery=discovery) as stack, anyio.create_task_group() as serving:
        scope = anyio.CancelScope()

        async def run() -> None:
            with scope:
                await serve(stack, listening, ready.set)

        serving.start_soon(run)
        await ready.wait()
        async with httpx.AsyncClient(base_url=url_of(listening), timeout=10) as client:

            async def stop_soon() -> None:
                while not a.in_flight:
                    await anyio.sleep(0.01)
                scope.cancel()

            serving.start_soon(stop_soon)
            reply = await client.post("/inference/chat_completion", json={**CHAT, "stream": stream})
        reported = json.loads(reply.text.strip().split("\n\n")[-1].removeprefix("data: "))["error"]
        assert (reported["code"], reported["message"]) == ("provider_unavailable", "the server is stopping")
        assert reply.status_code == (200 if stream else 503)
    assert a.in_flight == 0


async def test_the_garbage_collector_is_as_it_was_afterwards(serving: Serving) -> None:
    """While it serves, what it consists of is passed over, and what is new is looked through more rarely."""
    before = gc.get_threshold()
    async with serving():
        assert gc.get_threshold()[0] > before[0]
        assert gc.get_freeze_count()
    assert gc.get_threshold() == before
    assert not gc.get_freeze_count()


async def test_numbers_that_no_backend_can_take_are_refused(serving: Serving, script: Scripts) -> None:
    script("a")
    async with serving() as client:
        for name, value in (("max_tokens", 10**30), ("seed", 10**20), ("top_k", 10**12)):
            body = {**CHAT, "sampling_params": {"strategy": "greedy", name: value}}
            reply = await client.post("/inference/chat_completion", json=body)
            assert (reply.status_code, reply.json()["error"]["param"]) == (400, f"sampling_params.{name}")
        tools = [{"tool_name": ""}]
        assert (await client.post("/inference/chat_completion", json={**CHAT, "tools": tools})).status_code == 400


async def test_pages_of_other_sites_are_refused(serving: Serving, script: Scripts) -> None:
    script("a")
    async with serving() as client:
        body = {"model": {"identifier": "x"}}
        for origin in ("null", "http://evil.example", "https://127.0.0.1"):
            reply = await client.post("/models/register", json=body, headers={"Origin": origin})
            assert (reply.status_code, reply.json()["error"]["code"]) == (403, "permission_denied")
        own = str(client.base_url).rstrip("/")
        assert (await client.post("/models/register", json=body, headers={"Origin": own})).status_code == 200


async def raw(client: httpx.AsyncClient, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """What the server answers to these bytes until it closes the connection."""
    url = client.base_url
    answer = b""
    async with await anyio.connect_tcp(str(url.host), url.port or 80) as stream:
        for part in parts:
            await stream.send(part)
            await anyio.sleep(pause_s)
        with anyio.fail_after(5):
            async for block in stream:
                answer += block
    return answer


def http(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode() + body


async def test_requests_in_a_row_are_answered_in_their_order(serving: Serving, script: Scripts) -> None:
    script("a", pieces=2)
    chat = json.dumps({**CHAT, "stream": True}).encode()
    async with serving() as client:
        answer = await raw(
            client,
            http("GET", "/health")
            + http("HEAD", "/health")
            + http("POST", "/inference/chat_completion", chat)
            + http("GET", "/nothing", Connection="close"),
        )
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"200", b"200", b"200", b"404"]
    health, rest = answer.split(b'"status":"OK"', 1)
    assert health.count(b"HTTP/1.1 ") == 1
    head, stream = rest.split(b"HTTP/1.1 ", 1)[1].split(b"HTTP/1.1 ", 1)
    assert head.endswith(b"\r\n\r\n")
    assert b'"event_type":"complete"' in stream.split(b"HTTP/1.1 404")[0]


async def test_a_client_that_waits_to_be_told_to_send_its_body(serving: Serving, script: Scripts) -> None:
    script("a")
    body = json.dumps(CHAT).encode()
    head = http("POST", "/inference/chat_completion", body, Expect="100-continue", Connection="close")
    async with serving() as client:
        answer = await raw(client, head.removesuffix(body), body, pause_s=0.1)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert b'"content":"a"' in answer


async def test_a_connection_is_used_again_after_a_request_that_its_client_broke_off(
    serving: Serving, script: Scripts
) -> None:
    a = script("a", pieces=10_000, piece_delay_s=0.01)
    async with serving() as client:
        for _ in range(3):
            async with client.stream("POST", "/inference/chat_completion", json={**CHAT, "stream": True}) as reply:
                async for _ in reply.aiter_lines():
                    break
            assert (await client.get("/health")).status_code == 200
        with anyio.fail_after(5):
            while a.in_flight:
                await anyio.sleep(0.01)
    assert a.closed_streams == 3
