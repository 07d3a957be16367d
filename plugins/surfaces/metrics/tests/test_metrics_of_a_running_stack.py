"""Metrics of what runs now, and of other packages: streams, registrations, jobs, spans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import httpx
from metrics_samples import Samples, samples_in, value
from scripted_stacks import Scripts
from served_stack import served_script, served_stack

from llamastack.stack.discovery import Discovery

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
SAMPLE = [{"provider_id": "foo", "provider_type": "remote::sample", "config": {"models": ["m"]}}]
CALLS = "llamastack_provider_calls_total"


async def scraped(client: httpx.AsyncClient) -> Samples:
    return samples_in((await client.get("/metrics")).text)


async def test_an_open_stream_is_seen_until_its_client_goes(discovery: Discovery, script: Scripts) -> None:
    script("a", pieces=1000, piece_delay_s=0.01)
    async with served_script(discovery) as client:
        body = {**CHAT, "stream": True}
        async with client.stream("POST", "/inference/chat_completion", json=body) as reply:
            pieces = reply.aiter_bytes()
            while b'"progress"' not in await anext(pieces):  # the first event only announces the others
                pass
            found = await scraped(client)
            assert value(found, "llamastack_open_streams", api="inference", provider="a") == 1
            assert value(found, "llamastack_provider_calls_in_flight", api="inference", provider="a") == 1
            assert value(found, CALLS) == 0
        with anyio.fail_after(10):
            while value(found := await scraped(client), "llamastack_open_streams"):
                pass
    assert value(found, "llamastack_provider_calls_in_flight") == 0
    assert value(found, CALLS, status="cancelled") == 1
    assert value(found, "llamastack_time_to_first_token_seconds_count", provider="a") == 1


async def test_a_client_that_disconnects_is_a_499(discovery: Discovery, script: Scripts) -> None:
    script("a", pieces=1000, piece_delay_s=0.01)
    async with served_script(discovery) as client:
        async with client.stream("POST", "/inference/chat_completion", json={**CHAT, "stream": True}) as reply:
            await anext(reply.aiter_bytes())
        with anyio.fail_after(10):
            while not value(await scraped(client), "llamastack_http_requests_total", code="499"):
                pass


async def test_registrations_are_counted() -> None:
    async with served_stack({"providers": {"inference": SAMPLE}}) as (_, client):
        alias = {"identifier": "alias", "provider_id": "foo", "provider_resource_id": "m"}
        assert (await client.post("/models/register", json={"model": alias})).status_code == 200
        found = await scraped(client)
        assert value(found, "llamastack_resource_registrations_total", api="models") == 1
        assert value(found, "llamastack_resources", api="inference", provider="foo") == 2
        assert (await client.post("/models/unregister", json={"identifier": "alias"})).status_code == 200
        found = await scraped(client)
        assert value(found, "llamastack_resource_unregistrations_total", api="models") == 1
        assert value(found, "llamastack_resources", api="inference", provider="foo") == 1


async def test_jobs_are_counted_by_status(store: dict[str, Any]) -> None:
    jobs = [{"provider_id": "j", "provider_type": "durable", "config": {"concurrency": 0}}]
    async with served_stack({"providers": {"inference": SAMPLE, "jobs": jobs}, "store": store}) as (_, client):
        for _ in range(3):
            body = {"api": "inference", "method": "chat_completion", "arguments": CHAT}
            assert (await client.post("/jobs", json=body)).status_code == 202
        found = await scraped(client)
        with anyio.fail_after(10):
            while not value(found, "llamastack_jobs"):
                found = await scraped(client)
    assert value(found, "llamastack_jobs", status="queued") == 3
    assert value(found, "llamastack_jobs") == 3
    assert value(found, CALLS, api="jobs", method="list_jobs") == 0


async def test_lost_spans_are_counted(tmp_path: Path) -> None:
    telemetry = [{"provider_id": "log", "provider_type": "remote::sample"}]
    async with served_stack({"providers": {"inference": SAMPLE, "telemetry": telemetry}}) as (_, client):
        await client.post("/inference/chat_completion", json=CHAT)
        text = (await client.get("/metrics")).text
    assert 'llamastack_spans_dropped_total{provider="log"} 0.0' in text
    assert 'llamastack_spans_dropped_total{provider=""} 0.0' in text
