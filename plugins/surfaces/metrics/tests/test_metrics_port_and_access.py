"""Who gets the metrics: a port of their own, and the access of the server's port."""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack, suppress
from typing import Any

import access_fake
import anyio
import httpx
import pytest
from anyio.abc import SocketStream
from installed_fakes import install
from scripted_stacks import Scripts
from served_stack import served_stack

from llamastack.stack import Stack
from llamastack.stack.discovery import Discovery
from llamastack_metrics import timed_connection

INFERENCE = {"inference": [{"provider_id": "a", "provider_type": "scripted", "config": {"script": "a"}}]}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


async def test_a_port_of_their_own(discovery: Discovery, script: Scripts) -> None:
    script("a")
    port = free_port()
    config: dict[str, Any] = {"providers": INFERENCE, "metrics": {"port": port}}
    async with served_stack(config, discovery) as (_, client), httpx.AsyncClient() as other:
        assert (await client.get("/metrics")).status_code == 404
        found = await other.get(f"http://127.0.0.1:{port}/metrics")
        assert found.status_code == 200
        assert 'route="other"' in found.text
        assert (await other.get(f"http://127.0.0.1:{port}/health")).status_code == 404
        assert (await other.post(f"http://127.0.0.1:{port}/metrics")).status_code == 405
        assert (await other.head(f"http://127.0.0.1:{port}/metrics")).content == b""
    with socket.socket() as again:  # it is free again, and nothing listens
        again.bind(("127.0.0.1", port))


@pytest.mark.parametrize(
    ("sent", "limit"),
    [
        (b"", "HEAD_S"),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\n", "HEAD_S"),
        (b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab", "IDLE_S"),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "IDLE_S"),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\nGET /metr", "IDLE_S"),
    ],
)
async def test_connections_that_do_nothing_do_not_keep_the_port(
    discovery: Discovery, script: Scripts, monkeypatch: pytest.MonkeyPatch, sent: bytes, limit: str
) -> None:
    script("a")
    monkeypatch.setattr(timed_connection, limit, 0.3)
    port = free_port()
    async with served_stack({"providers": INFERENCE, "metrics": {"port": port}}, discovery), AsyncExitStack() as opened:
        silent = [await opened.enter_async_context(await anyio.connect_tcp("127.0.0.1", port)) for _ in range(40)]
        for each in silent:
            await each.send(sent)
        with anyio.fail_after(20):
            for each in silent:
                await until_closed(each)
        async with httpx.AsyncClient() as other:
            assert (await other.get(f"http://127.0.0.1:{port}/metrics")).status_code == 200


async def test_replies_that_nobody_reads_do_not_keep_the_port(
    discovery: Discovery, script: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    script("a")
    monkeypatch.setattr(timed_connection, "REPLY_S", 0.5)
    port = free_port()
    scrapes = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 5000
    async with served_stack({"providers": INFERENCE, "metrics": {"port": port}}, discovery):
        async with await anyio.connect_tcp("127.0.0.1", port) as greedy:
            with anyio.fail_after(20), suppress(anyio.BrokenResourceError):
                while True:  # until it is reset
                    await greedy.send(scrapes)
        async with httpx.AsyncClient() as other:
            assert (await other.get(f"http://127.0.0.1:{port}/metrics")).status_code == 200


async def until_closed(stream: SocketStream) -> None:
    with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        while True:
            await stream.receive()


async def test_a_port_that_is_taken_stops_the_start(discovery: Discovery, script: Scripts) -> None:
    script("a")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        stack = Stack.from_config({"providers": INFERENCE, "metrics": {"port": port}}, discovery=discovery)
        with pytest.raises(Exception, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            await stack.start()


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"path": "metrics"}, "must be a path"),
        ({"path": "/health"}, "which are taken"),
        ({"path": "/{x}"}, "must be a path"),
        ({"duration_buckets_s": [1, 0.5]}, "must rise"),
        ({"duration_buckets_s": []}, "at least 1"),
        ({"max_series": 1}, "greater than or equal to 10"),
        ({"prot": 1}, "prot"),
    ],
)
def test_wrong_settings_are_refused(discovery: Discovery, settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(Exception, match=fault):
        Stack.from_config({"providers": INFERENCE, "metrics": settings}, discovery=discovery)


async def test_a_run_config_with_metrics_can_be_used_without_the_package(
    discovery: Discovery, script: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    script("a")
    monkeypatch.setenv("LLAMASTACK_DISABLE_PLUGINS", "llamastack-metrics")
    async with served_stack({"providers": INFERENCE, "metrics": {"port": 9464}}, discovery) as (_, client):
        assert (await client.get("/metrics")).status_code == 404


async def test_a_scrape_needs_credentials_and_leave_to_read(
    discovery: Discovery, script: Scripts, tmp_path: Any
) -> None:
    script("a")
    install(tmp_path / "site-packages", "acme-keys", access_fake.ACCESS)
    access_fake.forget()
    async with served_stack({"providers": INFERENCE}, discovery) as (_, client):

        async def status(key: str | None) -> int:
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            return (await client.get("/metrics", headers=headers)).status_code

        assert await status(None) == 401
        assert await status("nobody") == 401
        assert await status("bob-key") == 403
        assert await status("ann-key") == 200
        text = (await client.get("/metrics", headers={"Authorization": "Bearer ann-key"})).text
        assert 'llamastack_provider_healthy{api="inference"' in text
        assert 'code="401",method="GET",route="other"' in text
    access_fake.forget()
