"""What is sent says the same as what OpenTelemetry's own SDK and exporter send."""

from __future__ import annotations

import random

import pytest
from backends.otlp_receivers import attributes_of
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from spans_for_tests import odd_span, request_spans

from llamastack_provider_opentelemetry.config import OpenTelemetryConfig
from llamastack_provider_opentelemetry.payloads import in_payloads
from llamastack_provider_opentelemetry.span_encoding import Sampling, SpanEncoder
from llamastack_provider_opentelemetry.values import resource_of, scope
from llamastack_telemetry import FinishedSpan, TimedEvent, conventions

STATUSES = {"ok": StatusCode.OK, "error": StatusCode.ERROR, "unset": StatusCode.UNSET}


def encoder(**config: object) -> SpanEncoder:
    return SpanEncoder(resource_of(OpenTelemetryConfig.model_validate(config), "one"), scope())


def encoded(*spans: FinishedSpan, **config: object) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    request.ParseFromString(encoder(**config)(spans))
    return request


def of_the_sdk(span: FinishedSpan) -> ReadableSpan:
    """The span as OpenTelemetry's SDK has it."""

    def context(span_id: str) -> SpanContext:
        flags = TraceFlags(TraceFlags.SAMPLED)
        return SpanContext(int(span.trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=flags)

    return ReadableSpan(
        name=span.name,
        context=context(span.span_id),
        parent=context(span.parent_id) if span.parent_id else None,
        resource=Resource({}),
        attributes=span.attributes,
        events=[Event(each.name, each.attributes, each.time_ns) for each in span.events],
        kind=SpanKind[span.kind.upper()],
        instrumentation_scope=InstrumentationScope("llamastack"),
        status=Status(STATUSES[span.status], span.message or None),
        start_time=span.start_ns,
        end_time=span.end_ns,
    )


@pytest.mark.parametrize("span", [odd_span(), *request_spans(2)], ids=lambda span: span.name)
def test_spans_are_what_the_sdk_sends(span: FinishedSpan) -> None:
    [theirs] = encode_spans([of_the_sdk(span)]).resource_spans[0].scope_spans[0].spans
    [own] = encoded(span).resource_spans[0].scope_spans[0].spans
    assert own.flags == 1
    theirs.flags = own.flags  # theirs also says that it knows whether the parent is remote, which a span here does not
    for each in (own, theirs):  # the order of attributes means nothing
        each.attributes.sort(key=lambda pair: str(pair.key))
    assert own == theirs


def test_a_request_says_what_the_stack_is_and_which_conventions_it_keeps() -> None:
    [one] = encoded(
        odd_span(), service_name="shop", resource_attributes={"deployment.environment.name": "test"}
    ).resource_spans
    assert one.schema_url == one.scope_spans[0].schema_url == conventions.SCHEMA_URL
    assert one.scope_spans[0].scope.name == "llamastack"
    assert one.scope_spans[0].scope.version
    attributes = attributes_of(one.resource.attributes)
    assert attributes["service.name"] == "shop"
    assert attributes["service.instance.id"] == "one"
    assert attributes["deployment.environment.name"] == "test"
    assert attributes["telemetry.sdk.language"] == "python"


def test_what_otlp_has_no_type_for_becomes_text_and_no_span_is_lost() -> None:
    odd = FinishedSpan("0" * 31 + "1", "0" * 15 + "1", None, "half \ud83e", "internal", -5, 2**64)
    odd.own_attributes = {"seed": 2**63, "half": "\ud83e!", "halves": ["\udd99"]}
    odd.events = [TimedEvent("\ud83e", -1, {"\udd99": "x"})]
    first, second = encoded(odd, *list(request_spans(1))[:1]).resource_spans[0].scope_spans[0].spans
    assert (first.name, first.start_time_unix_nano, first.kind) == ("half ?", 0, Span.SPAN_KIND_INTERNAL)
    assert first.end_time_unix_nano == 2**64 - 1
    assert attributes_of(first.attributes) == {"seed": str(2**63), "half": "?!", "halves": ["?"]}
    assert (first.events[0].name, attributes_of(first.events[0].attributes)) == ("?", {"?": "x"})
    assert second.name == "chat small"


@pytest.mark.parametrize("ratio", [0.0, 0.001, 0.25, 0.5, 0.999, 1.0])
def test_the_same_traces_are_sampled_as_by_the_sdk(ratio: float) -> None:
    theirs, own = TraceIdRatioBased(ratio), Sampling(ratio)
    numbers = random.Random(1)
    for trace_id in [1, 2**64 - 1, 2**128 - 1, *(numbers.getrandbits(128) for _ in range(2000))]:
        wanted = theirs.should_sample(None, trace_id, "a").decision is Decision.RECORD_AND_SAMPLE
        assert own.takes(f"{trace_id:032x}") is wanted


def test_a_large_batch_becomes_several_requests_and_keeps_its_order() -> None:
    spans = list(request_spans(500))
    payloads = in_payloads("traces", spans, encoder(), 65_536)
    assert len(payloads) > 1
    assert all(len(payload.body) <= 65_536 for payload in payloads)
    requests = [ExportTraceServiceRequest.FromString(payload.body) for payload in payloads]
    ids = [span.span_id.hex() for request in requests for span in request.resource_spans[0].scope_spans[0].spans]
    assert ids == [span.span_id for span in spans]
    assert sum(payload.items for payload in payloads) == 1000
