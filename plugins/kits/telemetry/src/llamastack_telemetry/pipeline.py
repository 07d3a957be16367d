"""From what hooks see of requests and calls to the spans that providers get."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from llamastack.provider.hookspecs import FinishedRequest
from llamastack.provider.provider_call import CallEvent
from llamastack_telemetry.call_spans import span_of_call, span_of_request
from llamastack_telemetry.content_capture import RawContent
from llamastack_telemetry.conventions import CONTENT_DROPPED
from llamastack_telemetry.prices import Cost
from llamastack_telemetry.settings import TracingConfig
from llamastack_telemetry.sink_queue import PipelineCounts, SinkQueue
from llamastack_telemetry.spans import Attributes, FinishedSpan

if TYPE_CHECKING:
    from llamastack_telemetry.content_attributes import ContentWriter

_LOGGER = logging.getLogger("llamastack.telemetry")
_LAST_FLUSH_S = 5.0
_GATHER_S = 0.05  # a thread for each span would take longer than its work
_REPORT_EVERY_S = 60.0


class Pipeline:
    """Makes a span of each request and call that has finished, and puts it into the queue of each provider.

    A span with content waits first: content is long, and is searched for what must not be kept, which takes a thread.
    """

    def __init__(self, settings: TracingConfig) -> None:
        self._settings = settings
        self._queues: Sequence[SinkQueue] = ()
        self._held: deque[tuple[FinishedSpan, RawContent | None]] = deque()
        self._news = anyio.Event()
        self._taking = anyio.Lock()
        self._content_bytes = 0
        self._writer: ContentWriter | None = None
        self._made = self._in_thread = self._dropped = self._reported = 0
        self._reported_at = -_REPORT_EVERY_S

    # perf: llamastack-v1-sqlite. The span is made at once: what it is made of is not kept, and batches are not faster.
    def add_call(self, event: CallEvent, cost: Cost | None, content: RawContent | None = None) -> None:
        """A call has ended."""
        self._add(span_of_call(event, time.time_ns(), cost), content)

    def add_request(self, request: FinishedRequest) -> None:
        """A request over HTTP has ended."""
        self._add(span_of_request(request, time.time_ns()), None)

    def _add(self, span: FinishedSpan, content: RawContent | None) -> None:
        self._made += 1
        if content is None and self._queues and not self._held and not self._in_thread:
            for queue in self._queues:
                queue.put(span)
        else:
            self._hold(span, content)  # spans keep their order

    def _hold(self, span: FinishedSpan, content: RawContent | None) -> None:
        if len(self._held) + self._in_thread >= self._settings.max_waiting_spans:
            self._dropped += 1
            return
        if content is not None:
            if self._content_bytes + content.size > self._settings.max_waiting_content_bytes:
                span.own_attributes[CONTENT_DROPPED] = True
                content = None
            else:
                self._content_bytes += content.size
        self._held.append((span, content))
        self._news.set()

    def counts(self) -> PipelineCounts:
        """What became of spans so far."""
        return PipelineCounts(
            made=self._made,
            exported={queue.provider_id: queue.exported for queue in self._queues},
            dropped={"": self._dropped, **{queue.provider_id: queue.dropped for queue in self._queues}},
            waiting=len(self._held) + self._in_thread + sum(queue.waiting for queue in self._queues),
        )

    async def run(self, queues: Sequence[SinkQueue]) -> None:
        """Work until it is cancelled."""
        self._queues = queues
        async with anyio.create_task_group() as tasks:
            for queue in queues:
                tasks.start_soon(queue.run, name=f"spans for {queue.provider_id}")
            while True:
                with anyio.move_on_after(self._settings.interval_s):
                    await self._news.wait()
                    await anyio.sleep(_GATHER_S)
                self._news = anyio.Event()
                await self._release()
                self._report()

    async def flush(self) -> None:
        """Hand over what there is, within a time limit, also if the caller is cancelled. Then report what is lost."""
        with anyio.move_on_after(_LAST_FLUSH_S, shield=True):
            await self._release()
            for queue in self._queues:
                await queue.drained()
        for queue in self._queues:
            queue.give_up()
        self._report(last=True)

    async def _release(self) -> None:
        """Put the spans that are held into the queues, with their content."""
        async with self._taking:
            while self._held:
                taken, self._held = self._held, deque()
                self._in_thread, size = len(taken), self._content_bytes
                if size:
                    with anyio.CancelScope(shield=True):  # what is taken must not be lost
                        await anyio.to_thread.run_sync(self._write, taken)
                for queue in self._queues:
                    for span, _ in taken:
                        queue.put_with_content(span)
                self._content_bytes -= size
                self._in_thread = 0

    def _write(self, taken: Sequence[tuple[FinishedSpan, RawContent | None]]) -> None:
        for span, content in taken:
            if content is not None:
                span.own_attributes.update(self._written(content))

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
