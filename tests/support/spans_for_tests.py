"""Spans such as the pipeline makes, for tests of telemetry providers."""

from __future__ import annotations

from collections.abc import Iterator

from llamastack_telemetry import FinishedSpan, TimedEvent

BEGAN_NS = 1_767_323_045_000_000_000
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


def request_spans(number: int) -> Iterator[FinishedSpan]:
    """The two spans of each of `number` requests, the call of a model first, as it ends first."""
    for at in range(1, number + 1):
        trace_id, call, request = f"{at:032x}", f"{2 * at:016x}", f"{2 * at + 1:016x}"
        yield FinishedSpan(
            trace_id,
            call,
            request,
            "chat small",
            "client",
            BEGAN_NS + at,
            BEGAN_NS + at + 1_000_000,
            "ok",
            "",
            {
                "llamastack.api": "inference",
                "llamastack.method": "chat_completion",
                "llamastack.provider_id": "openai",
                "llamastack.provider_type": "remote::openai",
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                "llamastack.object": "small",
                "gen_ai.request.model": "small",
                "llamastack.request_id": trace_id,
                "gen_ai.usage.input_tokens": 12,
                "gen_ai.usage.output_tokens": 34,
            },
        )
        yield FinishedSpan(
            trace_id,
            request,
            None,
            "POST /v1/chat/completions",
            "server",
            BEGAN_NS + at - 1000,
            BEGAN_NS + at + 1_100_000,
            "ok",
            "",
            {
                "http.request.method": "POST",
                "url.path": "/v1/chat/completions",
                "http.response.status_code": 200,
                "llamastack.request_id": trace_id,
                "http.route": "/v1/chat/completions",
            },
        )


def odd_span() -> FinishedSpan:
    """A span with an attribute of every type, events, and a failure."""
    return FinishedSpan(
        TRACE_ID,
        "00f067aa0ba902b7",
        "00f067aa0ba902b6",
        "chat größer 🦙",
        "producer",
        BEGAN_NS,
        BEGAN_NS + 5,
        "error",
        "the backend is down",
        {"text": "é", "yes": True, "no": False, "whole": 7, "part": 0.5, "list": ["a", "b"], "empty": []},
        [TimedEvent("retry", BEGAN_NS + 1, {"attempt": 2}), TimedEvent("end", BEGAN_NS + 4)],
    )
