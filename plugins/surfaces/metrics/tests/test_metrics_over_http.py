"""`GET /metrics` of a served stack."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
from metrics_samples import Samples, samples_in, value
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families
from scripted_stacks import Scripts
from served_stack import served_script, served_stack

from llamastack.provider import ProviderUnavailableError
from llamastack.stack.discovery import Discovery
from llamastack_metrics.definitions import METRICS, Kind

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


async def scraped(client: httpx.AsyncClient, path: str = "/metrics") -> Samples:
    reply = await client.get(path)
    assert reply.status_code == 200, reply.text
    return samples_in(reply.text)


async def test_requests_are_counted_by_their_route(discovery: Discovery, script: Scripts) -> None:
    script("a")
    async with served_script(discovery) as client:
        assert (await client.get("/health")).status_code == 200
        for path in ("/nowhere/1", "/nowhere/2"):
            assert (await client.get(path)).status_code == 404
        found = await scraped(client)
        assert value(found, "llamastack_http_requests_total", method="GET", route="/health", code="200") == 1
        assert value(found, "llamastack_http_requests_total", route="other", code="404") == 2
        assert value(found, "llamastack_http_request_duration_seconds_count", route="other") == 2
        assert value(found, "llamastack_http_request_duration_seconds_bucket", route="other", le="+Inf") == 2
        assert 0 < value(found, "llamastack_http_request_duration_seconds_sum", route="other") < 10
        again = await scraped(client)
        assert value(again, "llamastack_http_requests_total", route="/metrics", code="200") == 1


async def test_calls_of_providers_are_counted(discovery: Discovery, script: Scripts) -> None:
    scripted = script("a")
    async with served_script(discovery) as client:
        assert (await client.post("/inference/chat_completion", json=CHAT)).status_code == 200
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
        assert (await client.post("/inference/chat_completion", json={**CHAT, "stream": True})).status_code == 200
        scripted.fail_call = ProviderUnavailableError("no")
        assert (await client.post("/inference/chat_completion", json=CHAT)).status_code == 503
        found = await scraped(client)
    call = {"api": "inference", "method": "chat_completion", "model": "m", "provider": "a"}
    assert value(found, "llamastack_provider_calls_total", **call, status="ok") == 3
    assert value(found, "llamastack_provider_calls_total", **call, status="provider_unavailable") == 1
    assert value(found, "llamastack_provider_call_duration_seconds_count", **call) == 4
    assert value(found, "llamastack_time_to_first_token_seconds_count", **call) == 1
    assert value(found, "llamastack_provider_calls_in_flight", api="inference", provider="a") == 0
    assert value(found, "llamastack_provider_healthy", api="inference", provider="a", provider_type="scripted") == 1
    assert value(found, "llamastack_resources", api="inference", provider="a") == 1


async def test_a_model_that_is_not_served_is_no_label(discovery: Discovery, script: Scripts) -> None:
    script("a")
    async with served_script(discovery) as client:
        for path in ("/inference/chat_completion", "/v1/chat/completions"):
            assert (await client.post(path, json={**CHAT, "model": "made-up"})).status_code == 404
            assert (await client.post(path, json={**CHAT, "model": "a/made-up"})).status_code == 404
        assert "made-up" not in (await client.get("/metrics")).text


async def test_a_scraper_chooses_the_format(discovery: Discovery, script: Scripts) -> None:
    script("a")
    async with served_script(discovery) as client:
        plain = await client.get("/metrics", headers={"Accept": "*/*", "Accept-Encoding": "identity"})
        assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "content-encoding" not in plain.headers
        small = await client.get("/metrics", headers={"Accept-Encoding": "gzip"})
        assert small.headers["content-encoding"] == "gzip"
        assert "llamastack_http_requests_total" in small.text
        accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
        open_metrics = await client.get("/metrics", headers={"Accept": accept})
        assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
        assert open_metrics.text.endswith("# EOF\n")
        assert any(f.name == "llamastack_provider_calls" for f in parse_open_metrics(open_metrics.text))
        head = await client.head("/metrics")
        assert (head.status_code, head.content) == (200, b"")
        assert (await client.post("/metrics")).status_code == 405


async def test_metrics_that_are_switched_off_cost_nothing(discovery: Discovery, script: Scripts) -> None:
    script("a")
    config: dict[str, Any] = {
        "providers": {"inference": [{"provider_id": "a", "provider_type": "scripted", "config": {"script": "a"}}]}
    }
    async with served_stack({**config, "metrics": {"enabled": False}}, discovery) as (stack, client):
        assert (await client.get("/metrics")).status_code == 404
        for hook in ("request_finished", "call_started", "call_finished"):
            assert stack.hooks.listener(f"llamastack_{hook}") is None
    async with served_stack({**config, "metrics": {"path": "/internal/metrics"}}, discovery) as (_, client):
        assert (await client.get("/metrics")).status_code == 404
        assert "llamastack_workers 1.0" in (await client.get("/internal/metrics")).text


def test_the_table_of_the_docs_has_every_metric() -> None:
    page = Path(__file__).parents[4].joinpath("docs/metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \|", page, re.MULTILINE)
    documented = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    named = {f"{m.name}_total" if m.kind is Kind.counter else m.name: (str(m.kind), m.labels) for m in METRICS}
    assert {name: found for name, found in documented.items() if found[0] in set(Kind)} == named


async def test_what_is_exported_is_in_the_table(discovery: Discovery, script: Scripts) -> None:
    script("a")
    known = {metric.name: metric for metric in METRICS}
    async with served_script(discovery) as client:
        await client.post("/inference/chat_completion", json={**CHAT, "stream": True})
        families = [*text_string_to_metric_families((await client.get("/metrics")).text)]
    assert {family.name for family in families} <= known.keys()
    assert {*known} - {family.name for family in families} == {
        "llamastack_cost",
        "llamastack_jobs",
        "llamastack_spans_dropped",
        "llamastack_spans_exported",
    }
    for family in families:
        assert (family.type, family.documentation) == (known[family.name].kind, known[family.name].help)
        for sample in family.samples:
            assert {*sample.labels} - {"le"} == {*known[family.name].labels}
