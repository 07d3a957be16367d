"""From what hooks see of requests and calls to the spans that providers get, off the request's path."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import anyio.to_thread

from llamastack.provider.hookspecs import FinishedRequest
from llamastack.provider.provider_call import CallEvent
from llamastack_telemetry.call_spans import DROPPED, FinishedCall, finished_call, span_of_call, span_of_request
from llamastack_telemetry.content_capture import RawContent
from llamastack_telemetry.conventions import CONTENT_DROPPED
from llamastack_telemetry.prices import Cost
from llamastack_telemetry.settings import TracingConfig
from llamastack_telemetry.sink_queue import PipelineCounts, SinkQueue
from llamastack_telemetry.spans import Attributes, FinishedSpan

if TYPE_CHECKING:
    from llamastack_telemetry.content_attributes import ContentWriter

_LOGGER = logging.getLogger("llamastack.telemetry")
_LEAST_AT_ONCE, _MOST_AT_ONCE = 64, 1024  # spans
_MOST_BODIES = 2_000
_LAST_FLUSH_S = 5.0
_REPORT_EVERY_S = 60.0
_FinishedRequest = tuple[FinishedRequest, int]


class Pipeline:
    """Keeps what has finished, makes spans of it, and hands them to the queue of each provider."""

    def __init__(self, settings: TracingConfig) -> None:
        self._settings = settings
        self._queues: Sequence[SinkQueue] = ()
        self._finished: deque[FinishedCall | _FinishedRequest] = deque()
        self._full = anyio.Event()
        self._taking = anyio.Lock()
        self._content_bytes = 0
        self._writer: ContentWriter | None = None
        self._made = self._in_thread = self._dropped = self._reported = 0
        self._reported_at = -_REPORT_EVERY_S

    def add_call(self, event: CallEvent, cost: Cost | None, content: RawContent | None = None) -> None:
        """A call has ended."""
        if len(self._finished) >= self._settings.max_waiting_spans:
            self._dropped += 1
            return
        with_body = len(self._finished) < _MOST_BODIES
        finished = finished_call(event, time.time_ns(), cost, with_body=with_body)
        self._finished.append(finished if content is None else self._with_content(finished, content))
        if len(self._finished) == self._settings.max_batch_spans:
            self._full.set()

    def _with_content(self, finished: FinishedCall, content: RawContent) -> FinishedCall:
        if self._content_bytes + content.size > self._settings.max_waiting_content_bytes:
            return finished._replace(content=DROPPED)
        self._content_bytes += content.size
        return finished._replace(content=content)

    def add_request(self, request: FinishedRequest) -> None:
        """A request over HTTP has ended."""
        if len(self._finished) >= self._settings.max_waiting_spans:
            self._dropped += 1
            return
        self._finished.append((request, time.time_ns()))
        if len(self._finished) == self._settings.max_batch_spans:
            self._full.set()

    def counts(self) -> PipelineCounts:
        """What became of spans so far."""
        return PipelineCounts(
            made=self._made,
            exported={queue.provider_id: queue.exported for queue in self._queues},
            dropped={"": self._dropped, **{queue.provider_id: queue.dropped for queue in self._queues}},
            waiting=len(self._finished) + self._in_thread + sum(queue.waiting for queue in self._queues),
        )

    async def run(self, queues: Sequence[SinkQueue]) -> None:
        """Work until it is cancelled."""
        self._queues = queues
        async with anyio.create_task_group() as tasks:
            for queue in queues:
                tasks.start_soon(queue.run, name=f"spans for {queue.provider_id}")
            while True:
                with anyio.move_on_after(self._settings.interval_s):
                    await self._full.wait()
                self._full = anyio.Event()
                await self._take()
                self._report()

    async def flush(self) -> None:
        """Hand over what there is, within a time limit, also if the caller is cancelled. Then report what is lost."""
        with anyio.move_on_after(_LAST_FLUSH_S, shield=True):
            await self._take()
            for queue in self._queues:
                await queue.drained()
        for queue in self._queues:
            queue.give_up()
        self._report(last=True)

    async def _take(self) -> None:
        async with self._taking:  # spans keep their order
            while self._finished:
                if self._content_bytes:
                    spans = await self._taken_with_content()
                else:
                    # perf: llamastack-v1-sqlite. In a thread it takes eight times as long, since the thread and the
                    # event loop wait for each other's turns. A span takes 5 us; more are made if more are waiting.
                    number = min(max(_LEAST_AT_ONCE, len(self._finished) // 8), _MOST_AT_ONCE, len(self._finished))
                    spans = self._spans_of(self._finished.popleft() for _ in range(number))
                    await anyio.lowlevel.checkpoint()
                self._made += len(spans)
                for queue in self._queues:
                    queue.put(spans)

    async def _taken_with_content(self) -> list[FinishedSpan]:
        """Content is long, and is searched for what must not be kept: that takes a thread."""
        taken, self._finished = self._finished, deque()
        self._in_thread, held = len(taken), self._content_bytes
        spans = await anyio.to_thread.run_sync(self._spans_of, taken)
        self._content_bytes -= held
        self._in_thread = 0
        return spans

    def _spans_of(self, finished: Iterable[FinishedCall | _FinishedRequest]) -> list[FinishedSpan]:
        spans = []
        for each in finished:
            if not isinstance(each, FinishedCall):
                spans.append(span_of_request(each[0], each[1]))
                continue
            span = span_of_call(each)
            if each.content is DROPPED:
                span.attributes[CONTENT_DROPPED] = True
            elif each.content is not None:
                span.attributes.update(self._written(each.content))
            spans.append(span)
        return spans

    def _written(self, content: RawContent) -> Attributes:
        if self._writer is None:
            from llamastack_telemetry.content_attributes import ContentWriter  # few stacks ask for content

            self._writer = ContentWriter(self._settings)
        return self._writer.attributes(content)

    def _report(self, *, last: bool = False) -> None:
        counts = self.counts()
        dropped = sum(counts.dropped.values())
        now = time.monotonic()
        if dropped == self._reported or (now - self._reported_at < _REPORT_EVERY_S and not last):
            return
        where = ", ".join(f"{name or 'before any provider'}: {number}" for name, number in _lost(counts.dropped))
        _LOGGER.warning("%d spans were dropped since the start (%s)", dropped, where)
        self._reported, self._reported_at = dropped, now


def _lost(dropped: Mapping[str, int]) -> list[tuple[str, int]]:
    return [(name, number) for name, number in dropped.items() if number]
