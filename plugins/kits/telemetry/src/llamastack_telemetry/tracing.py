"""The hooks of one stack that traces itself."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from llamastack.provider import hookimpl
from llamastack.provider.hookspecs import FinishedRequest
from llamastack.provider.provider_call import CallEvent
from llamastack_telemetry.content_capture import ContentCapture
from llamastack_telemetry.event_sink import EventSink
from llamastack_telemetry.pipeline import Pipeline
from llamastack_telemetry.price_list import PriceList
from llamastack_telemetry.settings import TracingConfig
from llamastack_telemetry.sink_queue import EXPORTING, PipelineCounts, SinkQueue
from llamastack_telemetry.spans import SpanSink

if TYPE_CHECKING:
    from llamastack.stack import Stack
    from llamastack.stack.supervisor import SupervisedProvider

_API = "telemetry"
_WITHOUT_SPANS = (_API, "inspect")


class Tracing:
    """Makes spans, and gives them to the providers of the telemetry API. Calls of that API itself are not traced.

    prices: what calls cost; None if nothing has a price. capture: takes the content; None if spans have none.
    """

    def __init__(
        self, settings: TracingConfig, prices: PriceList | None = None, capture: ContentCapture | None = None
    ) -> None:
        self._settings = settings
        self._capture = capture
        self._prices = prices
        self._pipeline = Pipeline(settings)
        self._ignored = frozenset([_API, *settings.ignored_paths])

    def counts(self) -> PipelineCounts:
        """What became of spans so far."""
        return self._pipeline.counts()

    @hookimpl
    def llamastack_begin_span(self, parent: str | None, target: str) -> str | None:
        if target in self._ignored or EXPORTING.get():
            return None
        # perf: llamastack-v1-sqlite. `random` is enough: ids must differ, not be secret.
        own = f"{random.getrandbits(64) or 1:016x}"
        if parent is not None:
            return f"{parent[:36]}{own}{parent[52:]}"
        ratio = self._settings.sampling_ratio
        flags = "01" if ratio == 1 or random.getrandbits(32) < ratio * 2**32 else "00"
        # perf: llamastack-v1-sqlite. A trace's id begins with its time, so that an index of ids grows at its end. With
        # random ids a store writes a page for each trace. W3C asks that the last 14 digits are random.
        return f"00-{int(time.time()):08x}{random.getrandbits(96):024x}-{own}-{flags}"

    @hookimpl
    def llamastack_call_finished(self, event: CallEvent) -> None:
        content = None if self._capture is None else self._capture.take(event)
        if event.traceparent is not None and _is_sampled(event.traceparent):
            self._pipeline.add_call(event, None if self._prices is None else self._prices.cost_of(event), content)

    @hookimpl
    def llamastack_request_finished(self, request: FinishedRequest) -> None:
        if request.traceparent is not None and _is_sampled(request.traceparent):
            self._pipeline.add_request(request)

    @hookimpl
    def llamastack_stack_lifespan(self, stack: Stack) -> AbstractAsyncContextManager[object]:
        return self._running(stack)

    @asynccontextmanager
    async def _running(self, stack: Stack) -> AsyncIterator[None]:
        self._ignored |= _routes_without_spans(stack)
        queues = [
            SinkQueue(instance.provider_id, _SinkOf(instance), self._settings) for instance in stack.instances[_API]
        ]
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._pipeline.run, queues, name="spans")
                try:
                    yield
                finally:
                    await self._pipeline.flush()
                    tasks.cancel_scope.cancel()
        finally:
            self._pipeline.close()


class _SinkOf:
    """Gives a provider as a sink, whichever it is at the moment: one that was down is another object afterwards."""

    def __init__(self, instance: SupervisedProvider) -> None:
        self._instance = instance
        self._made_of: object = None
        self._sink: SpanSink | None = None

    def __call__(self) -> SpanSink | None:
        provider = self._instance.provider
        if provider is not self._made_of:
            self._made_of = provider
            self._sink = _as_sink(provider)
        return self._sink


def _as_sink(provider: object) -> SpanSink | None:
    if provider is None or isinstance(provider, SpanSink):
        return provider
    return EventSink(provider)  # type: ignore[arg-type]  # the stack has checked that it is of the telemetry API


def _is_sampled(traceparent: str) -> bool:
    return traceparent[-1] in "13579bdf"


def _routes_without_spans(stack: Stack) -> frozenset[str]:
    """A span for each look at traces would hide the others."""
    return frozenset(
        method.web.route
        for name in _WITHOUT_SPANS
        if name in stack.apis
        for method in stack.apis[name].methods.values()
    )
