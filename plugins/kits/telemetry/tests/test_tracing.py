"""A stack that traces itself: in process, and over HTTP."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from installed_fakes import entry_points_in, install
from telemetry_fake import FAKE_SINKS, FakeSink

from llamastack import Stack
from llamastack.api import ChatCompletionResponseEvent, ChatCompletionResponseStreamChunk, TokenUsage, UserMessage
from llamastack.provider import InvalidRequestError, ObjectNotFoundError
from llamastack.provider.context import current_context, use_context
from llamastack.stack.discovery import Discovery
from llamastack_server import create_app
from llamastack_telemetry import FinishedSpan, PipelineCounts, TraceIdFilter, pipeline_counts

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CLIENT = f"00-{TRACE}-00f067aa0ba902b7-01"
NO_TRACE = f"00-{'0' * 32}-{'1' * 16}-01"
NOT_SAMPLED = f"00-{TRACE}-00f067aa0ba902b7-00"
HI = [UserMessage(content="Hi")]
Started = Callable[..., Any]


@pytest.fixture
def traced(tmp_path: Path) -> Started:
    """Starts a stack with sample providers and fake sinks."""
    install(tmp_path / "site", "llamastack-fake-sink", FAKE_SINKS)
    discovery = Discovery(entry_points_in(tmp_path / "site"))

    @asynccontextmanager
    async def start(*more: dict[str, object], **tracing: object) -> AsyncIterator[tuple[Stack, FakeSink]]:
        sample = [{"provider_id": "sample", "provider_type": "remote::sample"}]
        fake = {"provider_id": "fake", "provider_type": "fake-sink"}
        config = {
            "providers": {"inference": sample, "agents": sample, "telemetry": [fake, *more]},
            "tracing": {"interval_s": 0.01, **tracing},
        }
        async with Stack.from_config(config, folder=tmp_path / "state", discovery=discovery) as stack:
            sink = stack.instances["telemetry"][0].provider
            assert isinstance(sink, FakeSink)
            yield stack, sink

    return start


@asynccontextmanager
async def over_http(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(stack))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


async def model_of(stack: Stack) -> str:
    return (await stack.models.list_models())[0].identifier


def by_name(spans: list[FinishedSpan]) -> dict[str, FinishedSpan]:
    return {span.name: span for span in spans}


async def test_a_call_in_process_begins_a_trace_or_goes_on_with_one(traced: Started) -> None:
    async with traced() as (stack, sink):
        model = await model_of(stack)
        await stack.inference.chat_completion(model=model, messages=HI)
        with use_context(traceparent=CLIENT):
            await stack.inference.chat_completion(model=model, messages=HI)
            assert current_context().traceparent == CLIENT
        own, below = await sink.until(2)
    assert own.name == below.name == f"chat {model}"
    assert (own.parent_id, below.parent_id) == (None, "00f067aa0ba902b7")
    assert own.trace_id != below.trace_id == TRACE
    assert 0 < own.end_ns - own.start_ns < 10**10
    assert below.attributes["gen_ai.operation.name"] == "chat"
    assert below.attributes["gen_ai.request.model"] == model
    assert below.status == "ok"


async def test_a_request_and_its_calls_are_a_tree(traced: Started) -> None:
    async with traced() as (stack, sink), over_http(stack) as client:
        model = await model_of(stack)
        config = {"model": model, "instructions": "Be short.", "enable_session_persistence": False}
        agent = (await client.post("/agents/create", json={"agent_config": config})).json()["agent_id"]
        session = (await client.post("/agents/session/create", json={"agent_id": agent, "session_name": "s"})).json()
        await sink.until(4)
        sink.spans.clear()
        turn = {"agent_id": agent, "session_id": session["session_id"], "messages": [{"role": "user", "content": "Hi"}]}
        async with client.stream(
            "POST", "/agents/turn/create", json={**turn, "stream": True}, headers={"traceparent": CLIENT}
        ) as reply:
            assert reply.status_code == 200
            async for _ in reply.aiter_bytes():
                pass
        spans = by_name(await sink.until(3))
    request, invoked, chat = (
        spans["POST /agents/turn/create"],
        next(span for name, span in spans.items() if name.startswith("invoke_agent")),
        spans[f"chat {model}"],
    )
    assert {span.trace_id for span in spans.values()} == {TRACE}
    assert request.parent_id == "00f067aa0ba902b7"
    assert invoked.parent_id == request.span_id
    assert chat.parent_id == invoked.span_id
    assert (request.kind, invoked.attributes["gen_ai.request.stream"]) == ("server", True)
    assert request.attributes["http.response.status_code"] == 200


async def test_the_id_of_a_request_is_that_of_the_trace_which_it_begins(traced: Started) -> None:
    async with traced() as (stack, sink), over_http(stack) as client:
        begins = await client.get("/models/list")
        named = await client.get("/models/list", headers={"X-Request-ID": "my-own"})
        goes_on = await client.get("/models/list", headers={"traceparent": CLIENT})
        first, second, third = await sink.until(3)
    assert begins.headers["x-request-id"] == first.trace_id
    assert (named.headers["x-request-id"], second.attributes["llamastack.request_id"]) == ("my-own", "my-own")
    assert third.trace_id == TRACE != goes_on.headers["x-request-id"]


async def test_an_error_has_its_reason(traced: Started) -> None:
    async with traced() as (stack, sink), over_http(stack) as client:
        body = {"model": "none", "messages": [{"role": "user", "content": "Hi"}]}
        assert (await client.post("/inference/chat_completion", json=body)).status_code == 404
        with pytest.raises(ObjectNotFoundError):
            await stack.inference.chat_completion(model="none", messages=HI)
        [request] = await sink.until(1)  # nothing reached a provider
    assert (request.status, request.attributes["http.response.status_code"]) == ("unset", 404)


async def test_telemetry_and_health_are_not_traced(traced: Started) -> None:
    async with traced() as (stack, sink), over_http(stack) as client:
        event = {
            "type": "unstructured_log",
            "trace_id": TRACE,
            "span_id": "1",
            "timestamp": "2030-01-01T00:00:00Z",
            "message": "hello",
            "severity": "info",
        }
        assert (await client.post("/telemetry/log_event", json={"event": event})).status_code == 200
        assert (await client.get("/telemetry/get_trace", params={"trace_id": "1"})).status_code == 501
        for path in ("/health", "/ready", "/providers/list", "/metrics"):
            await client.get(path)
        await client.get("/models/list")
        [request] = await sink.until(1)
        assert len(sink.events) == 1
    assert request.name == "GET /models/list"
    assert len(sink.spans) == 1


async def test_scrapes_at_another_path_get_no_span(tmp_path: Path) -> None:
    install(tmp_path / "site", "llamastack-fake-sink", FAKE_SINKS)
    config = {
        "providers": {
            "inference": [{"provider_id": "sample", "provider_type": "remote::sample"}],
            "telemetry": [{"provider_id": "fake", "provider_type": "fake-sink"}],
        },
        "tracing": {"interval_s": 0.01},
        "metrics": {"path": "/prom"},
    }
    discovery = Discovery(entry_points_in(tmp_path / "site"))
    async with (
        Stack.from_config(config, folder=tmp_path / "state", discovery=discovery) as stack,
        over_http(stack) as client,
    ):
        sink = stack.instances["telemetry"][0].provider
        assert isinstance(sink, FakeSink)
        assert (await client.get("/prom")).status_code == 200
        await client.get("/models/list")
        await sink.until(1)
    assert [span.name for span in sink.spans] == ["GET /models/list"]


async def test_ids_of_traces_begin_with_their_time(traced: Started) -> None:
    """A store then adds them at the end of its index; two of one second differ all the same."""
    before = int(time.time())
    async with traced() as (stack, sink):
        model = await model_of(stack)
        for _ in range(20):
            await stack.inference.chat_completion(model=model, messages=HI)
    ids = {span.trace_id for span in sink.spans}
    assert len(ids) == 20
    assert all(before <= int(trace_id[:8], 16) <= time.time() for trace_id in ids)


@pytest.mark.parametrize("given", ["junk", "", "00-ABC", CLIENT.upper(), f"ff{CLIENT[2:]}", NO_TRACE])
def test_a_traceparent_that_is_not_valid_is_refused_in_process(given: str) -> None:
    with pytest.raises(InvalidRequestError, match="traceparent must be of W3C Trace Context"):
        use_context(traceparent=given)


async def test_what_a_sink_calls_is_not_traced(traced: Started) -> None:
    async with traced() as (stack, sink):
        model = await model_of(stack)
        take = sink.export_spans

        async def and_ask(spans: list[FinishedSpan]) -> None:
            await stack.inference.chat_completion(model=model, messages=HI)
            await take(spans)

        vars(sink)["export_spans"] = and_ask
        await stack.inference.chat_completion(model=model, messages=HI)
        await sink.until(1)
        await stack.inference.chat_completion(model=model, messages=HI)
        await sink.until(2)
        counts = pipeline_counts(stack)
    assert counts is not None
    assert (counts.made, len(sink.spans)) == (2, 2)


async def test_the_decision_of_the_client_goes_before_the_ratio(traced: Started) -> None:
    async with traced(sampling_ratio=0) as (stack, sink):
        model = await model_of(stack)
        await stack.inference.chat_completion(model=model, messages=HI)
        with use_context(traceparent=CLIENT):
            await stack.inference.chat_completion(model=model, messages=HI)
        await sink.until(1)
    assert [span.trace_id for span in sink.spans] == [TRACE]
    async with traced() as (stack, sink):
        with use_context(traceparent=NOT_SAMPLED):
            await stack.inference.chat_completion(model=model, messages=HI)
        await stack.inference.chat_completion(model=model, messages=HI)
        await sink.until(1)
    assert [span.parent_id for span in sink.spans] == [None]


async def test_every_provider_gets_every_span_also_one_that_takes_events_alone(traced: Started) -> None:
    two = {"provider_id": "second", "provider_type": "fake-sink"}
    events = {"provider_id": "sample", "provider_type": "remote::sample"}
    async with traced(two, events) as (stack, first):
        model = await model_of(stack)
        with use_context(traceparent=CLIENT):
            await stack.inference.chat_completion(model=model, messages=HI)
        second = stack.instances["telemetry"][1].provider
        assert isinstance(second, FakeSink)
        assert (await first.until(1)) == (await second.until(1))
        with anyio.fail_after(10):
            while (counts := pipeline_counts(stack)) is None or counts.exported["sample"] < 1:
                await anyio.sleep(0.005)
        trace = await stack.telemetry.get_trace(trace_id=TRACE)  # the first that can
    assert trace.root_span_id == first.spans[0].span_id


async def test_a_native_stream_has_tokens_and_the_time_of_the_first(traced: Started) -> None:
    async with traced() as (stack, sink):
        provider = stack.instances["inference"][0].provider

        async def pieces(**_: object) -> AsyncIterator[object]:
            async def events() -> AsyncIterator[object]:
                yield ChatCompletionResponseStreamChunk(event=event("start"))
                await anyio.sleep(0.02)
                yield ChatCompletionResponseStreamChunk(event=event("progress", delta="Hi"))
                usage = TokenUsage(prompt_tokens=21, completion_tokens=13)
                yield ChatCompletionResponseStreamChunk(event=event("complete", usage=usage))

            return events()

        vars(provider)["chat_completion"] = pieces
        model = await model_of(stack)
        async for _ in await stack.inference.chat_completion(model=model, messages=HI, stream=True):
            pass
        [span] = await sink.until(1)
    assert (span.attributes["gen_ai.usage.input_tokens"], span.attributes["gen_ai.usage.output_tokens"]) == (21, 13)
    assert span.attributes["gen_ai.response.time_to_first_chunk"] >= 0.02  # type: ignore[operator]


def event(kind: str, **fields: object) -> ChatCompletionResponseEvent:
    return ChatCompletionResponseEvent.model_validate({"event_type": kind, "delta": "", **fields})


async def test_a_stream_that_is_left_says_so(traced: Started) -> None:
    async with traced() as (stack, sink):
        pieces = await stack.inference.chat_completion(model=await model_of(stack), messages=HI, stream=True)
        await anext(pieces)
        await anext(pieces)  # the first one only announces the others
        await pieces.aclose()
        [span] = await sink.until(1)
    assert (span.status, span.attributes["llamastack.cancelled"]) == ("unset", True)
    assert isinstance(span.attributes["gen_ai.response.time_to_first_chunk"], float)


async def test_lines_of_a_log_have_the_ids_of_the_trace(traced: Started, caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(filter_ := TraceIdFilter())
    try:
        async with traced() as (stack, sink):
            provider = stack.instances["inference"][0].provider
            answer = provider.chat_completion  # type: ignore[union-attr]

            async def logged(*arguments: Any, **more: Any) -> Any:
                logging.getLogger("sample").warning("called")
                return await answer(*arguments, **more)

            provider.chat_completion = logged  # type: ignore[union-attr]
            with use_context(request_id="mine"):
                await stack.inference.chat_completion(model=await model_of(stack), messages=HI)
            [span] = await sink.until(1)
        logging.getLogger("sample").warning("outside")
    finally:
        caplog.handler.removeFilter(filter_)
    ids = [(r.message, r.trace_id, r.span_id, r.request_id) for r in caplog.records if r.name == "sample"]  # type: ignore[attr-defined]
    assert ids == [("called", span.trace_id, span.span_id, "mine"), ("outside", "", "", "")]


async def test_what_is_left_at_the_end_is_handed_over(traced: Started) -> None:
    async with traced(interval_s=60) as (stack, sink):
        model = await model_of(stack)
        for _ in range(20):
            await stack.inference.chat_completion(model=model, messages=HI)
        assert sink.spans == []
    assert len(sink.spans) == 20


async def test_spans_over_the_limit_are_dropped_and_counted(traced: Started, caplog: pytest.LogCaptureFixture) -> None:
    async with traced(interval_s=60, max_waiting_spans=10, max_batch_spans=100) as (stack, sink):
        model = await model_of(stack)
        for _ in range(25):
            await stack.inference.chat_completion(model=model, messages=HI)
        counts = pipeline_counts(stack)
    assert counts is not None
    assert counts.dropped == {"": 0, "fake": 15}
    assert len(sink.spans) == 10
    assert "15 spans were dropped since the start" in caplog.text


async def test_below_the_limit_no_span_of_100_000_is_lost(traced: Started) -> None:
    async with traced() as (stack, sink):
        model = await model_of(stack)
        for _ in range(100_000 // 500):
            for _ in range(500):
                await stack.inference.chat_completion(model=model, messages=HI)
            await anyio.sleep(0)  # the sample provider never waits, as a backend would
        await sink.until(100_000)
        assert pipeline_counts(stack) == PipelineCounts(100_000, {"fake": 100_000}, {"": 0, "fake": 0}, 0)
    assert len({(span.trace_id, span.span_id) for span in sink.spans}) == 100_000


async def test_a_stack_without_telemetry_has_no_such_plugin(tmp_path: Path) -> None:
    providers = {"inference": [{"provider_id": "sample", "provider_type": "remote::sample"}]}
    async with Stack.from_config({"providers": providers}, folder=tmp_path) as stack:
        assert pipeline_counts(stack) is None
        assert stack.hooks.begin_span() is None
