"""The events that wait for the collector: bounded, in batches, tried again while it is down."""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import anyio
import anyio.to_thread

from llamastack.api.telemetry import Event
from llamastack.provider.backoff import pause_s
from llamastack.provider.errors import InvalidRequestError, LlamaStackError
from llamastack.provider.redaction import without_known_secrets
from llamastack_provider_opentelemetry.event_encoding import EventEncoder
from llamastack_provider_opentelemetry.payloads import Payload

_LOGGER = logging.getLogger("llamastack.telemetry")
_BATCH = 512
_INTERVAL_S = 1.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_REPORT_EVERY_S = 60.0


class EventQueue:
    """First the events wait to be encoded, which a thread does soon; then the requests wait to be sent.

    most_events: that wait. most_bytes: of the events and the requests that wait. send: raises as `Transport.send`.
    """

    def __init__(
        self,
        provider_id: str,
        encode: EventEncoder,
        send: Callable[[Payload], Awaitable[None]],
        *,
        most_events: int,
        most_bytes: int,
    ) -> None:
        self.dropped = 0
        """How many events are lost: for want of room, refused, or left at the end."""
        self._provider_id, self._encode, self._send = provider_id, encode, send
        self._most_events, self._most_bytes = most_events, most_bytes
        self._events: deque[tuple[Event, int]] = deque()  # with their bytes
        self._payloads: deque[Payload] = deque()
        self._waiting_events = self._waiting_bytes = 0
        self._first, self._full, self._ready, self._done = (anyio.Event() for _ in range(4))
        self._encoding = anyio.Lock()
        self._failures = self._reported = 0
        self._reported_at = -_REPORT_EVERY_S

    @property
    def waiting(self) -> int:
        """How many events wait, those that are being sent too."""
        return len(self._events) + self._waiting_events

    def put(self, event: Event, size: int) -> None:
        """Add an event of `size` bytes as JSON. One for which there is no room is dropped."""
        if self.waiting >= self._most_events or self._waiting_bytes + size > self._most_bytes:
            self.dropped += 1
            return
        self._events.append((event, size))
        self._waiting_bytes += size
        self._first.set()
        if len(self._events) >= _BATCH:
            self._full.set()

    async def run(self) -> None:
        """Work until it is cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._send_all)
            while True:
                await self._first.wait()
                with anyio.move_on_after(_INTERVAL_S):
                    await self._full.wait()
                await self._encode_all()
                self._report()

    async def flush(self, limit_s: float) -> None:
        """Send what there is, within a time limit, and count the rest as dropped."""
        with anyio.move_on_after(limit_s):
            await self._encode_all()
            while self._payloads and not self._failures:
                self._done = anyio.Event()
                await self._done.wait()
        self.dropped += self.waiting + len(self._encode.open_spans)
        self._report(last=True)

    async def _encode_all(self) -> None:
        async with self._encoding:
            self._first, self._full = anyio.Event(), anyio.Event()
            while self._events:
                taken = [self._events.popleft() for _ in range(min(len(self._events), _BATCH))]
                events, size = [event for event, _ in taken], sum(size for _, size in taken)
                self._waiting_events += len(taken)
                payloads: list[Payload] = []
                try:
                    payloads = await anyio.to_thread.run_sync(self._encode, events)
                except Exception:  # a fault of the encoder must not end what sends the next events
                    self.dropped += len(taken)
                    _LOGGER.exception("telemetry provider '%s' cannot encode events", self._provider_id)
                finally:
                    self._waiting_events -= len(taken)
                    self._waiting_bytes -= size
                self._put(payloads)

    def _put(self, payloads: Sequence[Payload]) -> None:
        for payload in payloads:
            if self._waiting_bytes + len(payload.body) > self._most_bytes:
                self.dropped += payload.items
                continue
            self._payloads.append(payload)
            self._waiting_bytes += len(payload.body)
            self._waiting_events += payload.items
        self._ready.set()

    async def _send_all(self) -> None:
        while True:
            while not self._payloads:
                self._ready = anyio.Event()
                await self._ready.wait()
            payload = self._payloads[0]
            try:
                await self._send(payload)
            except LlamaStackError as error:
                self._done.set()
                if error.is_transient:
                    self._failures += 1
                    if self._failures == 1:
                        why = without_known_secrets(error.message)  # a collector may repeat the request
                        _LOGGER.warning("telemetry provider '%s' sends no events: %s", self._provider_id, why)
                    wait_s = max(pause_s(self._failures, _FIRST_PAUSE_S, _LONGEST_PAUSE_S), error.retry_after or 0)
                    await anyio.sleep(wait_s)
                    continue
                self.dropped += payload.items
                what = f"{payload.items} events of '{self._provider_id}' are refused, and lost: {error.message}"
                _LOGGER.warning("%s", what)
            if self._failures:
                _LOGGER.warning("telemetry provider '%s' sends events again", self._provider_id)
            self._failures = 0
            self._payloads.popleft()
            self._waiting_bytes -= len(payload.body)
            self._waiting_events -= payload.items
            self._done.set()

    def _report(self, *, last: bool = False) -> None:
        dropped = self.dropped + self._encode.open_spans.dropped
        now = time.monotonic()
        if dropped == self._reported or (now - self._reported_at < _REPORT_EVERY_S and not last):
            return
        _LOGGER.warning(
            "telemetry provider '%s' dropped %d events since the start, %d of them of spans that did not end in time",
            self._provider_id,
            dropped,
            self._encode.open_spans.dropped,
        )
        self._reported, self._reported_at = dropped, now


def json_bytes(event: Event) -> int:
    """The bytes of an event as JSON. Raises InvalidRequestError if it has no form as JSON."""
    try:
        return len(event.model_dump_json())
    except ValueError:  # a text with half a character, which is sent nevertheless
        pass
    try:
        return len(json.dumps(event.model_dump(), default=str))
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"event: it has no form as JSON: {error}", param="event") from None
