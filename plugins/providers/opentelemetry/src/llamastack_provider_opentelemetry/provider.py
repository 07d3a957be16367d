"""The provider: spans and events go to a collector."""

from __future__ import annotations

import logging
import uuid
from collections import deque
from collections.abc import Callable, Sequence

import anyio.to_thread

from llamastack.api.telemetry import Event, Telemetry
from llamastack.provider import Deps
from llamastack.provider.errors import InvalidRequestError, LlamaStackError, RequestTooLargeError
from llamastack.provider.redaction import Redactor, struck_error, without_known_secrets
from llamastack_provider_opentelemetry.config import OpenTelemetryConfig
from llamastack_provider_opentelemetry.event_encoding import EventEncoder
from llamastack_provider_opentelemetry.event_queue import EventQueue, json_bytes
from llamastack_provider_opentelemetry.http_transport import HttpTransport
from llamastack_provider_opentelemetry.open_spans import OpenSpans
from llamastack_provider_opentelemetry.payloads import Payload, in_payloads
from llamastack_provider_opentelemetry.span_encoding import Sampling, SpanEncoder
from llamastack_provider_opentelemetry.transport import Transport, rejected_in
from llamastack_provider_opentelemetry.values import resource_of, scope
from llamastack_telemetry import FinishedSpan

_LOGGER = logging.getLogger("llamastack.telemetry")
_LAST_FLUSH_S = 5.0
_SMALL_BYTES = 65_536  # a collector that says of so few bytes that they are too many means something else


class OpenTelemetryTelemetry(Telemetry):
    """Sends to one collector. It starts and is healthy also while the collector is down; `note` then says why."""

    def __init__(self, config: OpenTelemetryConfig, deps: Deps, transport: Transport) -> None:
        self.note: str | None = None
        """What is wrong with the collector, as far as the last request showed it."""
        self._config, self._deps, self._transport = config, deps, transport
        self._redact = Redactor(config)
        self._sampling = Sampling(config.sampling_ratio)
        resource, own_scope = resource_of(config, str(uuid.uuid4())), scope()
        self._encode = SpanEncoder(resource, own_scope)
        self._events = EventQueue(
            deps.provider_id,
            EventEncoder(
                resource,
                own_scope,
                spans=self._encode,
                open_spans=OpenSpans(config.open_span_timeout_s, config.max_waiting_bytes),
                sampling=self._sampling,
                most_bytes=config.max_request_bytes,
            ),
            self._send,
            most_events=config.max_waiting_events,
            most_bytes=config.max_waiting_bytes,
        )
        self._most_bytes = config.max_request_bytes  # of a request, as far as the collector takes as many
        self._batch: Sequence[FinishedSpan] | None = None
        self._unsent: deque[Payload] = deque()

    async def initialize(self) -> None:
        """Does not ask the collector anything: a stack serves without it, too."""
        self._deps.task_group.start_soon(self._events.run, name=f"events for {self._deps.provider_id}")

    async def shutdown(self) -> None:
        await self._events.flush(_LAST_FLUSH_S)
        await self._transport.close()

    async def export_spans(self, spans: Sequence[FinishedSpan]) -> None:
        """Send spans. When the same batch comes again, what the collector has got of it is not sent again.

        Without a span, an empty request asks the collector whether it takes any, which OTLP allows:
        https://opentelemetry.io/docs/specs/otlp/#full-success-1.
        """
        if not spans:
            await self._send(Payload("traces", b"", 0))
            return
        if self._batch is not spans:
            # perf: llamastack-v1-otlp. In a thread it takes several times as long, since the thread and the event loop
            # wait for each other's turns. A batch takes 4 ms.
            self._unsent = deque(self._payloads_of(self._sampled(spans)))
            self._batch = spans
        while self._unsent:
            try:
                await self._send(self._unsent[0])
            except LlamaStackError as error:
                if isinstance(error, RequestTooLargeError) and len(self._unsent[0].body) > _SMALL_BYTES:
                    await self._make_smaller(spans, error)
                    continue
                if not error.is_transient:
                    self._batch = None
                raise
            self._unsent.popleft()
        self._batch = None

    async def log_event(self, event: Event) -> None:
        """Put an event into the queue; it never waits for the collector. Raises InvalidRequestError for a large one."""
        size = json_bytes(event)
        if size > self._config.max_event_bytes:
            raise InvalidRequestError(
                f"event: it has {size} bytes as JSON; at most {self._config.max_event_bytes} are taken of an event; "
                "the config 'max_event_bytes' of the telemetry provider sets that",
                param="event",
            )
        self._events.put(event, size)

    def _sampled(self, spans: Sequence[FinishedSpan]) -> Sequence[FinishedSpan]:
        return spans if self._sampling.takes_all else [span for span in spans if self._sampling.takes(span.trace_id)]

    def _payloads_of(self, spans: Sequence[FinishedSpan]) -> list[Payload]:
        return in_payloads("traces", spans, self._encode, self._most_bytes)

    async def _make_smaller(self, spans: Sequence[FinishedSpan], error: RequestTooLargeError) -> None:
        """Make requests of half the size of what is left, from now on; a single span that is too large is lost."""
        refused = self._unsent[0]
        if refused.items == 1:
            self._unsent.popleft()
            _LOGGER.warning("a span of %d bytes is lost: %s", len(refused.body), without_known_secrets(error.message))
            return
        self._most_bytes = len(refused.body) * 2 // 3  # each half of it is smaller
        left = sum(payload.items for payload in self._unsent)
        self._unsent = deque(await anyio.to_thread.run_sync(self._payloads_of, self._sampled(spans)[-left:]))

    async def _send(self, payload: Payload) -> None:
        try:
            response = await self._transport.send(payload)
        except LlamaStackError as error:
            struck_error(error, self._redact)
            self.note = f"gets nothing through to its collector: {error.message}"
            raise
        self.note = None
        rejected, words = rejected_in(payload.signal, response)
        if rejected or words:
            _LOGGER.warning(
                "%s rejected %d of %d %s%s",
                self._transport.where,
                rejected,
                payload.items,
                {"traces": "spans", "logs": "log records", "metrics": "data points"}[payload.signal],
                self._redact(f": {words}" if words else ""),
            )


async def get_adapter_impl(config: OpenTelemetryConfig, deps: Deps) -> OpenTelemetryTelemetry:
    """Raises ImportError where the config asks for gRPC, and the extra `grpc` is not installed."""
    if config.protocol == "http/protobuf":
        return OpenTelemetryTelemetry(config, deps, HttpTransport(config))
    try:
        grpc_transport = await anyio.to_thread.run_sync(_grpc_transport)
    except ModuleNotFoundError as error:
        if error.name != "grpc":
            raise
        raise ImportError(
            "protocol: grpc needs grpcio: pip install 'llamastack-provider-opentelemetry[grpc]'"
        ) from None
    return OpenTelemetryTelemetry(config, deps, grpc_transport(config))


def _grpc_transport() -> Callable[[OpenTelemetryConfig], Transport]:
    """Imports grpcio, which takes longer than the event loop may be held up."""
    from llamastack_provider_opentelemetry.grpc_transport import GrpcTransport

    return GrpcTransport
