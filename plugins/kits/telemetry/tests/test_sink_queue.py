"""The queue of one sink: what becomes of spans whose provider is down, slow, or refuses them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest
from telemetry_fake import FakeSink

from llamastack.api.telemetry import Event
from llamastack.provider import InvalidRequestError, ProviderUnavailableError, RateLimitError
from llamastack_telemetry import FinishedSpan, sink_queue
from llamastack_telemetry.event_sink import EventSink
from llamastack_telemetry.settings import TracingConfig
from llamastack_telemetry.sink_queue import SinkQueue


def spans(number: int, first: int = 0) -> list[FinishedSpan]:
    return [FinishedSpan("0" * 32, f"{first + each:016x}", None, "a", "internal", 0, 1) for each in range(number)]


def put_all(queue: SinkQueue, added: list[FinishedSpan]) -> None:
    for span in added:
        queue.put(span)


@asynccontextmanager
async def running(queue: SinkQueue) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(queue.run)
        yield
        tasks.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_queue, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(sink_queue, "_LONGEST_PAUSE_S", 0.02)
    monkeypatch.setattr(sink_queue, "_LOOK_EVERY_S", 0.01)


def queue_of(sink: FakeSink, **settings: object) -> SinkQueue:
    return SinkQueue("a", lambda: sink, TracingConfig.model_validate({"interval_s": 0.01, **settings}))


async def test_spans_come_in_order_and_in_batches() -> None:
    sink = FakeSink()
    queue = queue_of(sink, max_batch_spans=10)
    given = spans(25)
    put_all(queue, given)
    async with running(queue):
        assert await sink.until(25) == given
    assert sink.sizes == [10, 10, 5]
    assert (queue.exported, queue.dropped, queue.waiting) == (25, 0, 0)


async def test_what_may_pass_is_tried_again_without_a_loss(caplog: pytest.LogCaptureFixture) -> None:
    sink = FakeSink()
    sink.fails = [ProviderUnavailableError("down"), TimeoutError(), ProviderUnavailableError("down")]
    queue = queue_of(sink, max_batch_spans=10)
    put_all(queue, spans(15))
    async with running(queue):
        assert await sink.until(15) == spans(15)
    assert queue.dropped == 0
    [down, again] = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert (down, again) == (
        "telemetry provider 'a' takes no spans: down",
        "telemetry provider 'a' takes spans again",
    )


async def test_a_backend_that_names_a_time_is_left_alone_until_then(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float | None] = []
    move_on_after = anyio.move_on_after

    def noted(delay: float | None, shield: bool = False) -> anyio.CancelScope:
        limits.append(delay)
        return move_on_after(0.001 if delay == 7.5 else delay, shield)

    monkeypatch.setattr(anyio, "move_on_after", noted)
    sink = FakeSink()
    sink.fails = [RateLimitError("slow down", retry_after=7.5)]
    queue = queue_of(sink)
    put_all(queue, spans(3))
    async with running(queue):
        assert await sink.until(3) == spans(3)
    assert 7.5 in limits


@pytest.mark.parametrize("error", [InvalidRequestError("too odd"), ValueError("a fault of the sink")])
async def test_what_does_not_pass_loses_one_batch(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    sink = FakeSink()
    sink.fails = [error]
    queue = queue_of(sink, max_batch_spans=10)
    put_all(queue, spans(15))
    async with running(queue):
        assert await sink.until(5) == spans(5, first=10)
    assert (queue.exported, queue.dropped) == (5, 10)
    assert "refuses 10 spans, which are lost" in caplog.text


async def test_a_sink_that_hangs_has_a_time_limit() -> None:
    sink = FakeSink()
    sink.hangs = True
    queue = queue_of(sink, export_timeout_s=0.01)
    put_all(queue, spans(3))
    async with running(queue):
        with anyio.fail_after(10):
            while sink.attempts < 3:
                await anyio.sleep(0.005)
        sink.hangs = False
        assert await sink.until(3) == spans(3)


async def test_a_provider_that_is_down_costs_bounded_memory() -> None:
    queue = SinkQueue("a", lambda: None, TracingConfig(max_waiting_spans=100, interval_s=0.01))
    async with running(queue):
        for first in range(0, 1000, 50):
            put_all(queue, spans(50, first))
            await anyio.sleep(0)
        assert (queue.waiting, queue.dropped) == (100, 900)
        with anyio.fail_after(1):
            await queue.drained()  # it does not wait for a provider that is down
        queue.give_up()
    assert (queue.waiting, queue.dropped, queue.exported) == (0, 1000, 0)


async def test_the_end_waits_for_a_sink_that_works() -> None:
    sink = FakeSink()
    queue = queue_of(sink, max_batch_spans=1)
    async with running(queue):
        put_all(queue, spans(20))
        await queue.drained()
        assert len(sink.spans) == 20
        await queue.drained()


async def test_at_the_end_a_provider_that_failed_is_tried_once_more() -> None:
    for still_down in (False, True):
        sink = FakeSink()
        sink.fails = [ProviderUnavailableError("down", retry_after=60) for _ in range(2 if still_down else 1)]
        queue = queue_of(sink)
        put_all(queue, spans(3))
        async with running(queue):
            with anyio.fail_after(10):
                while not sink.attempts:
                    await anyio.sleep(0.005)
                await queue.drained()
            assert sink.attempts == 2
        queue.give_up()
        assert (queue.exported, queue.dropped) == ((0, 3) if still_down else (3, 0))


def with_content(name: str, number: int, characters: int) -> list[FinishedSpan]:
    return [replace(span, own_attributes={name: "x" * characters}) for span in spans(number)]


async def test_spans_with_long_content_do_not_wait_for_a_whole_batch() -> None:
    sink = FakeSink()
    queue = queue_of(sink, interval_s=60)
    async with running(queue):
        for span in with_content("gen_ai.input.messages", 40, 131_072):
            queue.put_with_content(span)
        assert len(await sink.until(32)) == 32  # 4 MiB; what is left is less than a batch


@pytest.mark.parametrize("name", ["gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.retrieval.query.text"])
async def test_the_content_that_waits_is_bounded(name: str) -> None:
    queue = SinkQueue("a", lambda: None, TracingConfig(max_waiting_content_bytes=1_048_576))
    given = with_content(name, 20, 100_000)
    for span in given:
        queue.put_with_content(span)
    assert queue.waiting == 20
    kept = [span for span in queue._spans if name in span.own_attributes]
    assert len(kept) == 10
    assert all(span.own_attributes["llamastack.content.dropped"] for span in queue._spans if span not in kept)
    assert all(name in span.own_attributes for span in given)  # other providers get them whole


async def test_a_slow_provider_of_events_takes_a_batch_in_parts() -> None:
    provider = FakeSink()
    log, slow = provider.log_event, EventSink(provider)

    async def slowly(event: Event) -> None:
        await anyio.sleep(0.01)
        await log(event)

    vars(provider)["log_event"] = slowly
    queue = SinkQueue("a", lambda: slow, TracingConfig(export_timeout_s=0.1, interval_s=0.01))
    put_all(queue, spans(20))
    async with running(queue):
        with anyio.fail_after(20):
            while queue.exported < 20:
                await anyio.sleep(0.01)
    assert {event.span_id for event in provider.events} == {span.span_id for span in spans(20)}
    assert len(provider.events) < 60  # a part of a span may come again
