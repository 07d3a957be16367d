"""Collectors that refuse, are slow, or are down: what the pipeline is told, and that nothing is slowed or lost."""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio
import grpc
import pytest
from backends.fault_proxy import FaultProxy
from backends.otlp_receivers import Answer, GrpcCollector, fake_collector, grpc_collector
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from opentelemetry_provider import started
from spans_for_tests import odd_span, request_spans

from llamastack.provider.errors import (
    AuthenticationError,
    BackendError,
    InvalidRequestError,
    LlamaStackError,
    NotFoundError,
    PermissionDeniedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
    RequestTooLargeError,
)
from llamastack_telemetry import FinishedSpan

pytestmark = pytest.mark.anyio
SECRET = "a-key-of-the-collector"
PROTOBUF = {"content-type": "application/x-protobuf"}


async def until(condition: Callable[[], object], within_s: float = 20) -> None:
    with anyio.fail_after(within_s):
        while not condition():
            await anyio.sleep(0.01)


@pytest.mark.parametrize(
    ("status", "kind", "transient"),
    [
        (302, BackendError, False),
        (400, InvalidRequestError, False),
        (401, AuthenticationError, False),
        (403, PermissionDeniedError, False),
        (404, NotFoundError, False),
        (418, BackendError, False),
        (429, RateLimitError, True),
        (500, BackendError, False),
        (502, ProviderUnavailableError, True),
        (503, ProviderUnavailableError, True),
        (504, ProviderTimeoutError, True),
    ],
)
async def test_a_refusal_over_http_is_asked_again_if_otlp_allows_it(
    status: int, kind: type[LlamaStackError], transient: bool
) -> None:
    body = Status(code=3, message=f"not with {SECRET}").SerializeToString()
    refusal = Answer(status, {**PROTOBUF, "retry-after": "7", "location": "http://127.0.0.1:1/"}, body)
    with fake_collector(refusal) as (url, collector):
        async with started(endpoint=url, headers={"x-api-key": SECRET}) as provider:
            with pytest.raises(LlamaStackError) as raised:
                await provider.export_spans([odd_span()])
            note = provider.note
        assert collector.seen == 1, "the pipeline tries again, not the provider"
    assert type(raised.value) is kind
    assert raised.value.is_transient is transient
    assert raised.value.retry_after == (7 if transient else None)
    assert f"answered {status}" in raised.value.message
    assert note is not None
    assert raised.value.message in note
    assert SECRET not in note


@pytest.mark.parametrize("body", [b"<h1>nginx</h1>", b'{"message": "nginx"}'])
async def test_the_words_of_a_gateway_are_shown(body: bytes) -> None:
    with fake_collector(Answer(400, body=body)) as (url, _):
        async with started(endpoint=url) as provider:
            with pytest.raises(InvalidRequestError, match=r"answered 400: nginx"):
                await provider.export_spans([odd_span()])


async def test_a_collector_that_never_answers_is_a_timeout_and_is_let_go(caplog: pytest.LogCaptureFixture) -> None:
    with fake_collector(Answer(hangs=True)) as (url, collector):
        async with started(endpoint=url, timeout_s=0.2) as provider:
            with pytest.raises(ProviderTimeoutError, match=r"did not answer within 0.2 s"):
                await provider.export_spans([odd_span()])
            await until(lambda: collector.gone)


async def test_cancelling_ends_the_request_over_http() -> None:
    with fake_collector(Answer(hangs=True)) as (url, collector):
        async with started(endpoint=url, timeout_s=600) as provider, anyio.create_task_group() as tasks:
            tasks.start_soon(provider.export_spans, [odd_span()])
            await until(lambda: collector.seen)
            tasks.cancel_scope.cancel()
        await until(lambda: collector.gone)


async def test_a_collector_that_comes_back_gets_the_batch(faulty: Callable[[str], FaultProxy]) -> None:
    spans = list(request_spans(5))
    with fake_collector() as (url, collector):
        proxy = faulty(url)
        proxy.refuse()
        async with started(endpoint=proxy.url) as provider:
            with pytest.raises(ProviderUnavailableError, match="connection refused"):
                await provider.export_spans(spans)
            proxy.restore()
            await provider.export_spans(spans)
            assert provider.note is None
        assert [span.span_id.hex() for span in collector.received.spans] == [span.span_id for span in spans]


async def test_a_connection_that_breaks_off_is_tried_again(faulty: Callable[..., FaultProxy]) -> None:
    with fake_collector() as (url, _):
        async with started(endpoint=faulty(url, cut_after=5).url) as provider:
            with pytest.raises(ProviderUnavailableError):
                await provider.export_spans([odd_span()])


async def test_what_the_collector_has_of_a_batch_is_not_sent_again() -> None:
    spans = list(request_spans(500))
    with fake_collector() as (url, collector):
        collector.answers.extend([Answer(), Answer(503), Answer(), Answer(429)])
        async with started(endpoint=url, max_request_bytes=65_536) as provider:
            for _ in range(2):
                with pytest.raises(LlamaStackError) as raised:
                    await provider.export_spans(spans)
                assert raised.value.is_transient
            await provider.export_spans(spans)
        assert [span.span_id.hex() for span in collector.received.spans] == [span.span_id for span in spans]


def large_spans() -> list[FinishedSpan]:
    spans = list(request_spans(4))
    for span in spans:
        span.own_attributes["gen_ai.input.messages"] = "x" * 100_000
    return spans


async def test_a_batch_that_is_too_large_is_sent_in_smaller_requests(caplog: pytest.LogCaptureFixture) -> None:
    spans = large_spans()
    with fake_collector() as (url, collector):
        # All 8 spans are too large for it, then 4 and 2; the first alone is not, but the third is.
        collector.answers.extend([Answer(413), Answer(413), Answer(413), Answer(), Answer(), Answer(413)])
        async with started(endpoint=url) as provider:
            await provider.export_spans(spans)
        ids = [span.span_id.hex() for span in collector.received.spans]
    assert ids == [span.span_id for index, span in enumerate(spans) if index != 2]
    assert "bytes is lost: " in caplog.text


async def test_a_batch_that_is_too_large_for_grpc_is_sent_in_smaller_requests() -> None:
    spans = large_spans() * 6  # 4.8 MB; gRPC's own limit is 4 MiB
    with grpc_collector() as (port, collector):
        config = {"endpoint": f"http://127.0.0.1:{port}", "protocol": "grpc", "max_request_bytes": 100_000_000}
        async with started(**config) as provider:
            await provider.export_spans(spans)
        assert [span.span_id.hex() for span in collector.received.spans] == [span.span_id for span in spans]
        assert len(collector.received.requests) == 2


async def test_a_small_request_that_is_refused_as_too_large_is_not_sent_again() -> None:
    with fake_collector(Answer(413)) as (url, collector):
        async with started(endpoint=url) as provider:
            with pytest.raises(RequestTooLargeError, match="answered 413"):
                await provider.export_spans(list(request_spans(4)))
        assert collector.seen == 1


async def test_spans_that_the_collector_rejects_are_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    partial = ExportTracePartialSuccess(rejected_spans=3, error_message=f"too old; {SECRET}")
    body = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    with fake_collector(Answer(200, PROTOBUF, body)) as (url, _):
        async with started(endpoint=url, headers={"x-api-key": SECRET}) as provider:
            await provider.export_spans(list(request_spans(2)))
    [record] = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert f"{url} rejected 3 of 4 spans: too old; " in record.getMessage()
    assert SECRET not in record.getMessage()


# ---- gRPC ------------------------------------------------------------------------------------------------------------


def retry_in(seconds: int) -> bytes:
    detail = AnyMessage()
    detail.Pack(RetryInfo(retry_delay=Duration(seconds=seconds)))
    return bytes(Status(code=8, message="slow down", details=[detail]).SerializeToString())


@pytest.mark.parametrize(
    ("code", "details", "kind", "retry_after"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, None, InvalidRequestError, None),
        (grpc.StatusCode.UNAUTHENTICATED, None, AuthenticationError, None),
        (grpc.StatusCode.PERMISSION_DENIED, None, PermissionDeniedError, None),
        (grpc.StatusCode.INTERNAL, None, BackendError, None),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, None, BackendError, None),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, retry_in(7), RateLimitError, 7.0),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, b"\xff", BackendError, None),
        (grpc.StatusCode.UNAVAILABLE, None, ProviderUnavailableError, None),
        (grpc.StatusCode.UNAVAILABLE, retry_in(2), ProviderUnavailableError, 2.0),
        (grpc.StatusCode.ABORTED, None, ProviderUnavailableError, None),
    ],
)
async def test_a_refusal_over_grpc_is_asked_again_if_otlp_allows_it(
    code: grpc.StatusCode, details: bytes | None, kind: type[LlamaStackError], retry_after: float | None
) -> None:
    calls: list[int] = []

    def refuse(context: grpc.ServicerContext) -> None:
        calls.append(1)
        if details is not None:
            context.set_trailing_metadata((("grpc-status-details-bin", details),))
        context.abort(code, f"not with {SECRET}")

    with grpc_collector() as (port, collector):
        collector.refuse = refuse
        config = {"endpoint": f"http://127.0.0.1:{port}", "protocol": "grpc", "headers": {"x-api-key": SECRET}}
        async with started(**config) as provider:
            with pytest.raises(LlamaStackError) as raised:
                await provider.export_spans([odd_span()])
    assert len(calls) == 1
    assert type(raised.value) is kind
    assert raised.value.retry_after == retry_after
    assert f"answered {code.name}: not with" in raised.value.message
    assert SECRET not in raised.value.message


def hang(collector: GrpcCollector, gone: list[int]) -> None:
    def refuse(context: grpc.ServicerContext) -> None:
        context.add_callback(lambda: gone.append(1))
        collector.released.wait(30)

    collector.refuse = refuse


async def test_a_collector_over_grpc_that_never_answers_is_a_timeout() -> None:
    with grpc_collector() as (port, collector):
        hang(collector, [])
        async with started(endpoint=f"http://127.0.0.1:{port}", protocol="grpc", timeout_s=0.2) as provider:
            with pytest.raises(ProviderTimeoutError, match=r"did not answer within 0.2 s"):
                await provider.export_spans([odd_span()])


async def test_cancelling_ends_the_call_over_grpc() -> None:
    with grpc_collector() as (port, collector):
        gone: list[int] = []
        hang(collector, gone)
        config = {"endpoint": f"http://127.0.0.1:{port}", "protocol": "grpc", "timeout_s": 600}
        async with started(**config) as provider:
            with anyio.move_on_after(0.3) as limit:
                await provider.export_spans([odd_span()])
            assert limit.cancelled_caught
            await until(lambda: gone)


async def test_a_collector_over_grpc_that_comes_back_gets_the_batch(faulty: Callable[[str], FaultProxy]) -> None:
    spans = list(request_spans(5))
    with grpc_collector() as (port, collector):
        proxy = faulty(f"http://127.0.0.1:{port}")
        proxy.refuse()
        async with started(endpoint=proxy.url, protocol="grpc") as provider:
            with pytest.raises(ProviderUnavailableError, match="UNAVAILABLE"):
                await provider.export_spans(spans)
            proxy.restore()
            with anyio.fail_after(20):
                while True:
                    try:
                        await provider.export_spans(spans)
                        break
                    except ProviderUnavailableError:
                        await anyio.sleep(0.1)
        assert [span.span_id.hex() for span in collector.received.spans] == [span.span_id for span in spans]
