"""How requests reach a collector: what both transports have in common."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from llamastack_provider_opentelemetry.payloads import Payload, Signal

_LOGGER = logging.getLogger("llamastack.telemetry")
_MOST_SHOWN = 500  # characters of a collector's own words


class Transport(Protocol):
    """Sends requests to one collector."""

    where: str
    """Scheme, host and port, for messages."""

    async def send(self, payload: Payload) -> bytes:
        """Send a request; returns the serialized response.

        Raises ProviderUnavailableError, ProviderTimeoutError or RateLimitError for what may pass, with `retry_after`
        where the collector names a time, and another error of the family for what a second attempt does not mend.
        """

    async def close(self) -> None:
        """Close the connections."""


_Response = ExportTraceServiceResponse | ExportLogsServiceResponse | ExportMetricsServiceResponse
_RESPONSES: Mapping[Signal, type[_Response]] = {
    "traces": ExportTraceServiceResponse,
    "logs": ExportLogsServiceResponse,
    "metrics": ExportMetricsServiceResponse,
}


def rejected_in(signal: Signal, response: bytes) -> tuple[int, str]:
    """How much of a request the collector rejected although it answered with a success, and its words for it."""
    try:
        read = _RESPONSES[signal].FromString(response)
    except DecodeError:
        return 0, ""  # it answered something else than OTLP asks for, but with a success
    if isinstance(read, ExportTraceServiceResponse):
        number = read.partial_success.rejected_spans
    elif isinstance(read, ExportLogsServiceResponse):
        number = read.partial_success.rejected_log_records
    else:
        number = read.partial_success.rejected_data_points
    return int(number), shown(read.partial_success.error_message)


def shown(text: str) -> str:
    """A collector's words in one line, and not too many."""
    line = " ".join(text.split())
    return line if len(line) <= _MOST_SHOWN else f"{line[:_MOST_SHOWN]}..."
