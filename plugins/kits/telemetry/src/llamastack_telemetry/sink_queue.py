"""The spans that wait for one provider: bounded, handed over in batches, tried again while the provider is down."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace

import anyio

from llamastack.provider.backoff import pause_s
from llamastack.provider.errors import LlamaStackError
from llamastack_telemetry.conventions import CONTENT_DROPPED, INPUT_MESSAGES, OUTPUT_MESSAGES, QUERY_TEXT
from llamastack_telemetry.settings import TracingConfig
from llamastack_telemetry.spans import FinishedSpan, SpanSink

__all__ = ["PipelineCounts", "SinkQueue"]

_LOGGER = logging.getLogger("llamastack.telemetry")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_LOOK_EVERY_S = 0.5
_MOST_CONTENT_OF_A_BATCH = 2 * 1024 * 1024
_CONTENT = (INPUT_MESSAGES, OUTPUT_MESSAGES, QUERY_TEXT)


EXPORTING: ContextVar[bool] = ContextVar("llamastack_exporting", default=False)
"""Whether a provider takes spans just now: what it calls for that is not traced, or it would never end."""


@dataclass
class PipelineCounts:
    """What became of spans, since the start of this process.

    made: how many spans there were. exported: how many each provider got, by provider_id. dropped: how many are lost,
    by provider_id; "" counts those that are lost for all providers. waiting: how many are in memory now.
    """

    made: int
    exported: dict[str, int]
    dropped: dict[str, int]
    waiting: int


class SinkQueue:
    """The spans for one provider.

    sink: gives the provider as a sink; None while it is down.
    """

    def __init__(self, provider_id: str, sink: Callable[[], SpanSink | None], settings: TracingConfig) -> None:
        self.provider_id = provider_id
        self.exported = self.dropped = 0
        self._sink = sink
        self._settings = settings
        self._most_waiting, self._most_at_once = settings.max_waiting_spans, settings.max_batch_spans
        self._spans: deque[FinishedSpan] = deque()
        self._news = anyio.Event()
        self._in_hand = self._content_bytes = 0
        self._failures = 0
        self._empty = anyio.Event()
        self._full = anyio.Event()
        self._is_last = anyio.Event()

    @property
    def waiting(self) -> int:
        """How many spans it has, those that are being exported too."""
        return len(self._spans) + self._in_hand

    def put(self, span: FinishedSpan) -> None:
        """Add a span. One for which there is no room is dropped: the newest, so that what is kept has no gaps."""
        number = len(self._spans)
        if number + self._in_hand >= self._most_waiting:
            self.dropped += 1
            return
        self._spans.append(span)
        # perf: llamastack-v1-sqlite. Most spans are neither the first nor the last one of a batch.
        if number == 0:
            self._news.set()
        elif number == self._most_at_once - 1:
            self._full.set()

    def put_with_content(self, span: FinishedSpan) -> None:
        """Add a span that may have the content of messages; for that there is room for some bytes alone."""
        size = _content_of(span)
        if self._content_bytes + size > self._settings.max_waiting_content_bytes:
            span, size = _without_content(span), 0
        dropped = self.dropped
        self.put(span)
        if self.dropped == dropped:
            self._content_bytes += size
            if self._is_full:
                self._full.set()

    @property
    def _is_full(self) -> bool:
        return len(self._spans) >= self._most_at_once or self._content_bytes >= _MOST_CONTENT_OF_A_BATCH

    async def drained(self) -> None:
        """Wait until it has no spans, or the provider refuses to take them once more. Returns at once if it is down."""
        if self.waiting and self._sink() is not None:
            self._empty = anyio.Event()
            self._is_last.set()
            self._full.set()
            await self._empty.wait()

    def give_up(self) -> None:
        """Count the spans that it still has as dropped."""
        self.dropped += self.waiting
        self._spans.clear()
        self._in_hand = self._content_bytes = 0

    async def run(self) -> None:
        """Hand spans over until it is cancelled."""
        EXPORTING.set(True)  # in the context of this task
        while True:
            batch = await self._next_batch()
            while (error := await self._export(batch)) is not None:
                if not error.is_transient:
                    self._lose(batch, error)
                    break
                self._failures += 1
                if self._failures == 1:
                    _LOGGER.warning("telemetry provider '%s' takes no spans: %s", self.provider_id, error.message)
                await self._pause(error)
            else:
                if self._failures:
                    _LOGGER.warning("telemetry provider '%s' takes spans again", self.provider_id)
            self._failures = 0

    async def _pause(self, error: LlamaStackError) -> None:
        """Leave the provider alone for a while; at the end it is tried once more, at once."""
        was_last = self._is_last.is_set()
        if was_last:
            self._empty.set()  # nobody waits any longer
        with anyio.move_on_after(
            max(pause_s(self._failures, _FIRST_PAUSE_S, _LONGEST_PAUSE_S), error.retry_after or 0)
        ):
            await (anyio.sleep_forever() if was_last else self._is_last.wait())

    async def _next_batch(self) -> list[FinishedSpan]:
        while not self._spans:
            self._empty.set()
            self._news = anyio.Event()
            await self._news.wait()
        if not self._is_full and not self._is_last.is_set():
            self._full = anyio.Event()
            with anyio.move_on_after(self._settings.interval_s):
                await self._full.wait()
        batch: list[FinishedSpan] = []
        content = 0
        while self._spans and len(batch) < self._most_at_once and content < _MOST_CONTENT_OF_A_BATCH:
            batch.append(self._spans.popleft())
            if self._content_bytes:
                content += _content_of(batch[-1])
        self._in_hand = len(batch)
        return batch

    async def _export(self, batch: list[FinishedSpan]) -> LlamaStackError | None:
        """Returns why it failed."""
        while (sink := self._sink()) is None:  # noqa: ASYNC110 - a provider that comes up sets no event
            await anyio.sleep(_LOOK_EVERY_S)
        try:
            with anyio.fail_after(self._settings.export_timeout_s):
                await sink.export_spans(batch)
        except TimeoutError:
            return _Passing(f"it took longer than {self._settings.export_timeout_s:g} s")
        except LlamaStackError as error:
            return error
        except Exception as error:
            _LOGGER.exception("telemetry provider '%s' failed", self.provider_id)
            return _Lasting(f"{type(error).__name__}: {error}")
        self.exported += len(batch)
        self._release(batch)
        return None

    def _release(self, batch: list[FinishedSpan]) -> None:
        self._in_hand = 0
        if self._content_bytes:
            self._content_bytes -= sum(map(_content_of, batch))

    def _lose(self, batch: list[FinishedSpan], error: LlamaStackError) -> None:
        self.dropped += len(batch)
        self._release(batch)
        what = f"telemetry provider '{self.provider_id}' refuses {len(batch)} spans, which are lost: {error.message}"
        _LOGGER.warning("%s", what)


def _content_of(span: FinishedSpan) -> int:
    """How many bytes of memory the content of a span takes."""
    found = (span.own_attributes.get(name) for name in _CONTENT)
    return sum(sys.getsizeof(content) for content in found if isinstance(content, str))


def _without_content(span: FinishedSpan) -> FinishedSpan:
    """A copy, because other providers get the span, too."""
    kept = {name: value for name, value in span.own_attributes.items() if name not in _CONTENT}
    return replace(span, own_attributes={**kept, CONTENT_DROPPED: True})


class _Passing(LlamaStackError):
    status = 504


class _Lasting(LlamaStackError):
    status = 500
