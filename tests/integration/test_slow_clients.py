"""Time limits of connections: clients that send slowly, read slowly, or do nothing."""

from __future__ import annotations

import json
import logging
import time

import anyio
import pytest
from backends.scripted_http import MODEL, chunked, scripted_http
from raw_client import RawClients, request
from scripted_stacks import Scripts
from served_stack import served_script, served_stack

from llamastack.stack.discovery import Discovery
from llamastack_server import slow_clients

pytestmark = pytest.mark.anyio
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
BODY = json.dumps(CHAT).encode()
PATHS = ("/inference/chat_completion", "/v1/chat/completions")


async def test_heads_that_do_not_end(discovery: Discovery, script: Scripts) -> None:
    script("a")
    async with served_script(discovery, server={"head_timeout_s": 0.6}) as client, RawClients(client) as raw:
        silent = [await raw.open() for _ in range(50)]
        stuck = [await raw.open(b"GET /v1/models HTTP/1.1\r\nHost: loc") for _ in range(50)]
        slow = [await raw.open(b"P") for _ in range(50)]
        began = time.monotonic()
        while time.monotonic() - began < 2:
            for one in slow:
                await one.send(b"O")
            await anyio.sleep(0.1)
        for one in silent:
            assert await one.read() == b""
        for one in stuck:
            await one.read()
            assert one.statuses == [408]
            error = json.loads(one.body)["error"]
            assert (error["code"], error["type"]) == ("request_timeout", "invalid_request_error")
            assert "server.head_timeout_s" in error["message"]
        for one in slow:
            await one.read()
            assert one.closed
        assert (await client.get("/health")).status_code == 200


@pytest.mark.parametrize("path", PATHS)
async def test_bodies_that_do_not_go_on(
    discovery: Discovery, script: Scripts, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    script("a")
    head = request("POST", path, BODY).removesuffix(BODY)
    chunked = head.replace(b"Content-Length: %d" % len(BODY), b"Transfer-Encoding: chunked")
    with caplog.at_level(logging.INFO, logger="llamastack.access"):
        async with served_script(discovery, server={"body_timeout_s": 0.6}) as client, RawClients(client) as raw:
            none = await raw.open(head)
            part = await raw.open(head + b"{")
            slow = await raw.open(head)
            framing = await raw.open(chunked + b"5;x=")
            began = time.monotonic()
            for _ in range(30):
                await slow.send(b" ")
                await framing.send(b"x")
                await anyio.sleep(0.05)
            for one in (none, part, slow, framing):
                await one.read()
                assert one.statuses == [408]
                error = json.loads(one.body)["error"]
                assert error["code"] == "request_timeout"
                assert "server.body_timeout_s" in error["message"]
                assert ("type" in error) is path.startswith("/v1")
                assert "connection: close" in one.head
            assert time.monotonic() - began < 25  # where the limit is left out, it is 30 s
    lines = [record.getMessage() for record in caplog.records if record.name == "llamastack.access"]
    assert len([line for line in lines if line.startswith(f"POST {path} 408 ")]) == 4


async def test_a_body_that_comes_slowly_but_steadily_is_taken(discovery: Discovery, script: Scripts) -> None:
    script("a")
    body = json.dumps({**CHAT, "messages": [{"role": "user", "content": "x" * 1000}]}).encode()
    async with served_script(discovery, server={"body_timeout_s": 0.4}) as client, RawClients(client) as raw:
        asked = await raw.open(request("POST", PATHS[0], body).removesuffix(body))
        for start in range(0, len(body), 50):
            await asked.send(body[start : start + 50])
            await anyio.sleep(0.1)
        await asked.read()
        assert asked.statuses == [200]


async def test_the_rest_of_a_body_that_is_answered_already(
    discovery: Discovery, script: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is dropped as it comes, but not for ever."""
    monkeypatch.setattr(slow_clients, "_LONGEST_REST_S", 0.5)
    script("a")
    limits = {"body_timeout_s": None, "max_body_bytes": 1000}
    async with served_script(discovery, server=limits) as client, RawClients(client) as raw:
        asked = await raw.open(request("POST", PATHS[0], b"x" * 100_000)[:5000])
        await asked.read(until=b"request_too_large")
        with anyio.fail_after(5):
            while await asked.send(b"x"):
                await anyio.sleep(0.05)


async def test_connections_without_a_request(discovery: Discovery, script: Scripts) -> None:
    script("a")
    kept = request("GET", "/health").replace(b"Connection: close\r\n", b"")
    async with served_script(discovery, server={"idle_timeout_s": 0.6}) as client, RawClients(client) as raw:
        used = await raw.open()
        began = time.monotonic()
        for number in range(8):  # longer than the limit, but never without a request for so long
            await used.send(kept)
            await used.read(until=b'"providers"')
            assert len(used.statuses) == number + 1
            used.answer = used.answer.replace(b'"providers"', b"")
            await anyio.sleep(0.15)
        assert time.monotonic() - began > 0.6
        with anyio.fail_after(5):
            await used.read()
        assert used.closed == "end"


async def test_the_time_of_a_reply_does_not_count(discovery: Discovery, script: Scripts) -> None:
    script("a", pieces=8, piece_delay_s=0.2)
    limits = dict.fromkeys(("head_timeout_s", "body_timeout_s", "idle_timeout_s", "unread_timeout_s"), 0.3)
    async with served_script(discovery, server=limits) as client:
        reply = await client.post(PATHS[0], json={**CHAT, "stream": True})
        assert (reply.status_code, reply.text.count("data: ")) == (200, 10)
        reply = await client.post(PATHS[0], json=CHAT)
        assert reply.status_code == 200


@pytest.mark.parametrize("off", [0, None])
async def test_limits_that_are_off(discovery: Discovery, script: Scripts, off: float | None) -> None:
    script("a")
    limits = dict.fromkeys(("head_timeout_s", "body_timeout_s", "idle_timeout_s", "unread_timeout_s"), off)
    head = request("POST", PATHS[0], BODY).removesuffix(BODY)
    async with served_script(discovery, server=limits) as client, RawClients(client) as raw:
        first, second = await raw.open(head[:20]), await raw.open(head)
        await anyio.sleep(1.5)
        await first.send(head[20:] + BODY)
        await second.send(BODY)
        for one in (first, second):
            await one.read()
            assert one.statuses == [200]


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_that_nobody_reads_is_cut(
    discovery: Discovery, script: Scripts, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    a = script("a", pieces=10**9)
    asks = request("POST", path, json.dumps({**CHAT, "stream": True}).encode())
    async with served_script(discovery, server={"unread_timeout_s": 0.5}) as client, RawClients(client) as raw:
        await raw.open(asks)
        with anyio.fail_after(5):
            while not a.in_flight:
                await anyio.sleep(0.01)
        with anyio.fail_after(30):  # until what the system keeps for the client is full
            while a.in_flight:
                await anyio.sleep(0.05)
        assert a.closed_streams == 1
        assert (await client.get("/health")).status_code == 200
    assert "has read nothing of its reply" in caplog.text


async def test_a_whole_reply_that_nobody_reads_is_cut(discovery: Discovery, script: Scripts) -> None:
    """It is written at once, and waits in memory."""
    a = script("a", serves=[f"model-{number}-{'x' * 2000}" for number in range(10_000)])
    async with served_script(discovery, server={"unread_timeout_s": 0.5}) as client, RawClients(client) as raw:
        asked = await raw.open(request("GET", "/models/list"))
        await anyio.sleep(2)
        with anyio.fail_after(10):
            await asked.read()
        assert len(asked.answer) < 20_000_000
        assert a.serves


async def test_a_stream_that_is_read_slowly_goes_on(discovery: Discovery, script: Scripts) -> None:
    a = script("a", pieces=10**9)
    asks = request("POST", PATHS[0], json.dumps({**CHAT, "stream": True}).encode())
    async with served_script(discovery, server={"unread_timeout_s": 1}) as client, RawClients(client) as raw:
        asked = await raw.open(asks)
        for _ in range(15):
            with anyio.fail_after(5):
                for _ in range(8):
                    await asked.stream.receive()
            await anyio.sleep(0.2)
        assert a.in_flight == 1


async def test_streams_without_end_leave_time_to_others(discovery: Discovery, script: Scripts) -> None:
    """Their backend always has more, and nobody reads them: what the system keeps for their clients fills up slowly.

    What counts is the CPU time of this thread, in which the server runs: how much it did before it did the request.
    """
    a = script("a", pieces=10**9, always_ready=True)
    script("b", serves=["other"])
    asks = request("POST", PATHS[0], json.dumps({**CHAT, "stream": True}).encode())
    async with served_script(discovery, ("a", "b")) as client, RawClients(client) as raw:
        for _ in range(50):
            await raw.open(asks)
        with anyio.fail_after(20):
            while a.opened_streams < 50:
                await anyio.sleep(0.01)
        took: list[float] = []
        for _ in range(40):
            await anyio.sleep(0.01)
            began = time.thread_time()
            with anyio.fail_after(10):
                reply = await client.post(PATHS[0], json={**CHAT, "model": "other"})
            took.append(time.thread_time() - began)
            assert reply.status_code == 200
        assert a.in_flight == 50
        assert sorted(took)[-3] < 0.15


EVENT = json.dumps(
    {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "a "}}]}
)


@pytest.mark.parametrize("path", PATHS)
async def test_forwarded_streams_and_those_of_adapters_do_so_too(
    discovery: Discovery, script: Scripts, path: str
) -> None:
    script("b", serves=["other"])
    block = f"data: {EVENT}\n\n".encode() * 40
    with scripted_http() as backend:
        backend.default = chunked(*[block] * 20_000)
        config = {
            "providers": {
                "inference": [
                    {"provider_id": "far", "provider_type": "remote::openai", "config": {"url": f"{backend.url}/v1"}},
                    {"provider_id": "b", "provider_type": "scripted", "config": {"script": "b"}},
                ]
            },
            "server": {"unread_timeout_s": 2},
        }
        asks = request("POST", path, json.dumps({**CHAT, "model": MODEL, "stream": True}).encode())
        async with served_stack(config, discovery) as (_, client), RawClients(client) as raw:
            for _ in range(50):
                await raw.open(asks)
            with anyio.fail_after(20):
                while len(backend.calls()) < 50:
                    await anyio.sleep(0.01)
            took: list[float] = []
            for _ in range(40):
                began = time.thread_time()
                with anyio.fail_after(10):
                    reply = await client.post(PATHS[0], json={**CHAT, "model": "other"})
                took.append(time.thread_time() - began)
                assert reply.status_code == 200
            assert sorted(took)[-3] < 0.3
            if path == PATHS[1]:  # these fill what the system keeps for their clients soon
                with anyio.fail_after(30):
                    while backend.broken_off < 50:
                        await anyio.sleep(0.1)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("reads", [False, True])
async def test_a_stream_without_end_ends_with_its_client(
    discovery: Discovery, script: Scripts, path: str, reads: bool
) -> None:
    """Nothing it does makes it wait, once nothing is written any more."""
    a = script("a", pieces=10**9, always_ready=True)
    asks = request("POST", path, json.dumps({**CHAT, "stream": True}).encode())
    async with served_script(discovery) as client, RawClients(client) as raw:
        asked = await raw.open(asks)
        await asked.read(until=b"data: ")
        if not reads:
            await anyio.sleep(1.5)  # until it waits for the client
        await anyio.aclose_forcefully(asked.stream)
        with anyio.fail_after(5):
            while a.in_flight:
                await anyio.sleep(0.01)
        assert a.closed_streams == 1
        assert (await client.get("/health")).status_code == 200
