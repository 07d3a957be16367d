"""Receivers of OTLP: a real one over HTTP (oteltap), one over gRPC, and one that injects faults."""

from __future__ import annotations

import gzip
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from oteltap import OtelTapHttpProtobufReceiver, OtelTapHttpProtobufReceiverSettings
from starlette.types import Receive, Scope, Send

from backends.serving import serving

_REQUESTS: Mapping[str, Any] = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
}


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def value_of(value: AnyValue) -> object:
    """The value as JSON has it."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return attributes_of(value.kvlist_value.values)
    return None if kind is None else getattr(value, kind)


def attributes_of(pairs: Any) -> dict[str, object]:
    """Attributes by name, of a repeated field of `KeyValue`."""
    found: list[KeyValue] = list(pairs)
    return {pair.key: value_of(pair.value) for pair in found}


@dataclass
class Received:
    """What a receiver got: requests with their headers, and what is in them."""

    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    logs: list[LogRecord] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)

    def add(self, path: str, headers: dict[str, str], request: Any) -> None:
        """Keep a request."""
        self.requests.append((path, headers, request))
        if isinstance(request, ExportTraceServiceRequest):
            self.spans += [span for one in request.resource_spans for group in one.scope_spans for span in group.spans]
        elif isinstance(request, ExportLogsServiceRequest):
            self.logs += [log for one in request.resource_logs for group in one.scope_logs for log in group.log_records]
        else:
            self.metrics += [each for one in request.resource_metrics for g in one.scope_metrics for each in g.metrics]


@asynccontextmanager
async def otel_tap() -> AsyncIterator[tuple[str, Received]]:
    """The URL of a real receiver, and what it gets. It takes no compressed requests."""
    settings = OtelTapHttpProtobufReceiverSettings(
        http_port=free_port(),
        print_traces_as_ndjson=False,
        print_logs_as_ndjson=False,
        print_metrics_as_ndjson=False,
    )
    received = Received()
    async with OtelTapHttpProtobufReceiver(settings) as tap, anyio.create_task_group() as tasks:

        async def keep(stream: AsyncIterator[Any], into: list[Any]) -> None:
            async for each in stream:
                into.append(each)

        tasks.start_soon(keep, tap.stream_traces(), received.spans)
        tasks.start_soon(keep, tap.stream_logs(), received.logs)
        tasks.start_soon(keep, tap.stream_metrics(), received.metrics)
        yield f"http://127.0.0.1:{settings.http_port}", received
        tasks.cancel_scope.cancel()


@dataclass
class Answer:
    """What a collector answers. hangs: never, until the connection is closed."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    hangs: bool = False


class FakeCollector:
    """An OTLP receiver over HTTP that answers as a test says: first each of `answers`, then `otherwise`.

    It keeps the requests that it answers with a success. seen: how many requests came in all.
    """

    def __init__(self, otherwise: Answer | None = None) -> None:
        self.received = Received()
        self.answers: deque[Answer] = deque()
        self.otherwise = otherwise or Answer()
        self.seen = self.gone = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _lifespan(receive, send)
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.seen += 1
        answer = self.answers.popleft() if self.answers else self.otherwise
        if answer.hangs:
            while (await receive())["type"] != "http.disconnect":
                pass
            self.gone += 1
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        if answer.status < 300:
            plain = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
            self.received.add(scope["path"], headers, _REQUESTS[scope["path"]].FromString(plain))
        given = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": given})
        await send({"type": "http.response.body", "body": answer.body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


@contextmanager
def fake_collector(otherwise: Answer | None = None) -> Iterator[tuple[str, FakeCollector]]:
    """The URL of a collector that injects faults, and the collector."""
    collector = FakeCollector(otherwise)
    with serving(collector) as url:
        yield url, collector


class GrpcCollector(
    trace_service_pb2_grpc.TraceServiceServicer,
    logs_service_pb2_grpc.LogsServiceServicer,
    metrics_service_pb2_grpc.MetricsServiceServicer,
):
    """An OTLP receiver over gRPC, of the generated services. `refuse` may end a call by aborting it."""

    def __init__(self) -> None:
        self.received = Received()
        self.refuse: Callable[[grpc.ServicerContext], None] = lambda context: None
        self.released = threading.Event()

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Take a request of any of the three services."""
        self.refuse(context)
        headers = dict(context.invocation_metadata())
        kind = type(request).__name__
        self.received.add(kind, headers, request)
        if kind == "ExportTraceServiceRequest":
            return ExportTraceServiceResponse()
        return ExportLogsServiceResponse() if kind == "ExportLogsServiceRequest" else ExportMetricsServiceResponse()


@contextmanager
def grpc_collector(credentials: grpc.ServerCredentials | None = None) -> Iterator[tuple[int, GrpcCollector]]:
    """The port of an OTLP receiver over gRPC, and the receiver."""
    collector = GrpcCollector()
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
        where = "127.0.0.1:0"
        port = server.add_insecure_port(where) if credentials is None else server.add_secure_port(where, credentials)
        server.start()
        try:
            yield port, collector
        finally:
            collector.released.set()
            server.stop(0).wait()
