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
_LAST_CONTENT_S, _LAST_FLUSH_S = 2.0, 5.0
_AT_ONCE = 64  # spans whose content is looked at in one turn of a thread
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
        self._in_thread: list[tuple[FinishedSpan, RawContent | None]] = []
        self._made = self._dropped = self._reported = 0
        self._reported_at = -_REPORT_EVERY_S
        self._reading: anyio.CancelScope | None = None
        self._is_late = False

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
        if len(self._held) + len(self._in_thread) >= self._settings.max_waiting_spans:
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
            waiting=len(self._held) + len(self._in_thread) + sum(queue.waiting for queue in self._queues),
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
        """Hand over what there is, within a time limit, also if the caller is cancelled."""
        with anyio.move_on_after(_LAST_CONTENT_S, shield=True):
            await self._release()
        self._is_late = True
        if self._reading is not None:
            self._reading.cancel()
        with anyio.CancelScope(shield=True):
            await self._release()
        with anyio.move_on_after(_LAST_FLUSH_S, shield=True):
            async with anyio.create_task_group() as tasks:  # at once: a provider that hangs delays no other one
                for queue in self._queues:
                    tasks.start_soon(queue.drained)

    def close(self) -> None:
        """Count what was not handed over as dropped, and report it. `run` has ended."""
        for queue in self._queues:
            queue.give_up()
        self._report(last=True)

    async def _release(self) -> None:
        """Put the spans that are held into the queues, with their content."""
        async with self._taking:
            while self._held:
                self._in_thread = [self._held.popleft() for _ in range(min(_AT_ONCE, len(self._held)))]
                try:
                    found = await self._read([content for _, content in self._in_thread])
                except BaseException:
                    self._held.extendleft(reversed(self._in_thread))
                    self._in_thread = []
                    raise
                for (span, content), attributes in zip(self._in_thread, found, strict=True):
                    self._release_one(span, content, attributes)
                self._in_thread = []

    async def _read(self, contents: Sequence[RawContent | None]) -> list[Attributes]:
        """The attributes of content. When there is no time left to look for secrets in it, it is dropped."""
        if not any(contents):
            return [{}] * len(contents)
        if not self._is_late:
            with anyio.CancelScope() as self._reading:
                return await anyio.to_thread.run_sync(self._write, contents, abandon_on_cancel=True)
        return [{} if content is None else {CONTENT_DROPPED: True} for content in contents]

    def _release_one(self, span: FinishedSpan, content: RawContent | None, attributes: Attributes) -> None:
        span.own_attributes.update(attributes)
        if content is not None:
            self._content_bytes -= content.size
        for queue in self._queues:
            queue.put_with_content(span)

    def _write(self, contents: Sequence[RawContent | None]) -> list[Attributes]:
        """In a thread. It changes no span, as nobody waits for it any more when the time is up."""
        return [{} if content is None else self._written(content) for content in contents]

    def _written(self, content: RawContent) -> Attributes:
        try:
            if self._writer is None:
                from llamastack_telemetry.content_attributes import ContentWriter  # few stacks ask for content

                self._writer = ContentWriter(self._settings)
            return self._writer.attributes(content)
        except Exception:
            # Clients and backends may write anything. What cannot be read costs the span its content, and no more.
            _LOGGER.exception("the content of a call could not be read; its span has none")
            return {CONTENT_DROPPED: True}

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
