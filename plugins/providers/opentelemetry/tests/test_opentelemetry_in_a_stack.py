"""A stack that sends its traces to a collector: it starts, serves and stays small whatever the collector does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from backends.fault_proxy import FaultProxy
from backends.otlp_receivers import Answer, fake_collector
from served_stack import served_stack

from llamastack import Stack
from llamastack.api.common import UserMessage
from llamastack_telemetry import PipelineCounts, pipeline_counts

pytestmark = pytest.mark.anyio
SECRET = "a-key-of-the-collector"


def run_config(endpoint: str, *, tracing: dict[str, Any] | None = None, **config: Any) -> dict[str, Any]:
    collector = {"endpoint": endpoint, "headers": {"x-api-key": SECRET}, "timeout_s": 0.3, **config}
    return {
        "providers": {
            "inference": [{"provider_id": "sample", "provider_type": "remote::sample"}],
            "telemetry": [
                {"provider_id": "otel", "provider_type": "remote::opentelemetry-jaeger", "config": collector}
            ],
        },
        "tracing": {"interval_s": 0.01, **(tracing or {})},
        "refresh_interval_s": 0.1,
        "store": {"type": "memory"},
    }


def counts_of(stack: Stack) -> PipelineCounts:
    counts = pipeline_counts(stack)
    assert counts is not None
    return counts


@pytest.mark.parametrize(
    "fault",
    [Answer(hangs=True), Answer(429, {"retry-after": "1"}), Answer(503), None],
    ids=["slow", "429", "503", "down"],
)
async def test_a_collector_that_is_away_slows_no_request_and_then_gets_all_spans(
    fault: Answer | None, faulty: Callable[[str], FaultProxy]
) -> None:
    with fake_collector(fault) as (url, collector):
        proxy = faulty(url)
        if fault is None:
            proxy.refuse()
        async with served_stack(run_config(proxy.url)) as (stack, client):
            [model, *_] = await stack.models.list_models()
            asked = {"model": model.identifier, "messages": [{"role": "user", "content": "Hi"}]}
            for _ in range(20):
                with anyio.fail_after(5):
                    assert (await client.post("/v1/chat/completions", json=asked)).status_code == 200
            health = {}
            with anyio.fail_after(20):
                while not health.get("note"):
                    [health] = [h for h in (await client.get("/health")).json()["providers"] if h["api"] == "telemetry"]
                    await anyio.sleep(0.02)
            assert health["status"] == "healthy"
            assert health["note"].startswith("gets nothing through to its collector: ")
            assert counts_of(stack).exported == {"otel": 0}
            collector.otherwise = Answer()
            proxy.restore()
            with anyio.fail_after(30):
                while len(collector.received.spans) < 40:
                    await anyio.sleep(0.02)
            assert counts_of(stack).dropped == {"": 0, "otel": 0}
    ids = {(span.trace_id, span.span_id) for span in collector.received.spans}
    assert len(ids) == len(collector.received.spans)


async def test_refused_spans_are_counted_and_the_log_has_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    with fake_collector(Answer(401, body=f'{{"message": "no {SECRET}"}}'.encode())) as (url, _):
        async with served_stack(run_config(url)) as (stack, client):
            assert (await client.get("/models/list")).status_code == 200
            with anyio.fail_after(20):
                while not counts_of(stack).dropped["otel"]:
                    await anyio.sleep(0.02)
    assert "refuses 1 spans, which are lost" in caplog.text
    assert "answered 401: no " in caplog.text
    assert SECRET not in caplog.text


async def calls(stack: Stack, number: int) -> None:
    [model, *_] = await stack.models.list_models()
    for _ in range(number):
        await stack.inference.chat_completion(model=model.identifier, messages=[UserMessage(content="Hi")])


async def test_memory_is_bounded_while_the_collector_is_away() -> None:
    with fake_collector(Answer(503)) as (url, _):
        config = run_config(url, tracing={"max_waiting_spans": 100, "max_batch_spans": 50})
        async with Stack.from_config(config) as stack:
            for _ in range(20):
                await calls(stack, 50)
                await anyio.sleep(0.02)
            counts = counts_of(stack)
            assert counts.waiting <= 200, "those that wait to become spans, and those that wait for the provider"
            assert counts.waiting + sum(counts.dropped.values()) == 1000


async def test_no_span_of_100_000_is_lost() -> None:
    with fake_collector() as (url, collector):  # oteltap takes 20 s to hand out as many
        async with Stack.from_config(run_config(url, timeout_s=10)) as stack:
            for _ in range(100_000 // 500):
                await calls(stack, 500)
                with anyio.fail_after(20):
                    while counts_of(stack).waiting > 10_000:
                        await anyio.sleep(0.005)
            with anyio.fail_after(60):
                while len(collector.received.spans) < 100_000:
                    await anyio.sleep(0.01)
            assert counts_of(stack).dropped == {"": 0, "otel": 0}
    assert len({(span.trace_id, span.span_id) for span in collector.received.spans}) == 100_000
