"""Spans and events for tests, and a telemetry provider that keeps them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio

from llamastack.api.telemetry import (
    LogSeverity,
    SpanEndPayload,
    SpanStartPayload,
    SpanStatus,
    StructuredLogEvent,
    UnstructuredLogEvent,
)
from llamastack.provider import Deps
from llamastack_provider_meta_reference.telemetry.config import TelemetryConfig
from llamastack_provider_meta_reference.telemetry.provider import MetaReferenceTelemetry
from llamastack_provider_meta_reference.telemetry.schema import open_file
from llamastack_provider_meta_reference.telemetry.trace_store import TraceStore
from llamastack_telemetry import Attributes, FinishedSpan

BEGAN_NS = 1_767_323_045_000_000_000
"""2026-01-02T03:04:05Z."""
SECOND_NS = 1_000_000_000
BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def store_at(path: Path) -> TraceStore:
    return TraceStore(open_file(path, own_folder=False, busy_timeout_s=10))


def request_of(number: int, *, at_s: float = 0, attributes: Attributes | None = None) -> list[FinishedSpan]:
    """The two spans of a request of `number`, the call first, as it ends first."""
    trace_id, root, call = f"{number + 1:032x}", f"{2 * number + 1:016x}", f"{2 * number + 2:016x}"
    start = BEGAN_NS + int(at_s * SECOND_NS)
    call_attributes: Attributes = {"gen_ai.usage.input_tokens": 3, "gen_ai.usage.output_tokens": 5}
    return [
        FinishedSpan(
            trace_id,
            call,
            root,
            "chat m",
            "client",
            start + SECOND_NS,
            start + 2 * SECOND_NS,
            "ok",
            own_attributes=call_attributes | (attributes or {}),
        ),
        FinishedSpan(trace_id, root, None, "POST /v1/chat/completions", "server", start, start + 3 * SECOND_NS, "ok"),
    ]


@asynccontextmanager
async def provider_in(folder: Path, **config: Any) -> AsyncIterator[MetaReferenceTelemetry]:
    async with anyio.create_task_group() as tasks:
        deps = Deps(provider_id="traces", task_group=tasks, state_dir=folder)
        provider = MetaReferenceTelemetry(TelemetryConfig(**config), deps)
        await provider.initialize()
        try:
            yield provider
        finally:
            await provider.shutdown()
            tasks.cancel_scope.cancel()


def start(span_id: str, at_s: float, parent: str | None = None, **attributes: Any) -> StructuredLogEvent:
    payload = SpanStartPayload(name=f"name of {span_id}", parent_span_id=parent)
    return _structured(span_id, at_s, payload, attributes)


def end(span_id: str, at_s: float, status: SpanStatus = SpanStatus.ok, **attributes: Any) -> StructuredLogEvent:
    return _structured(span_id, at_s, SpanEndPayload(status=status), attributes)


def _structured(
    span_id: str, at_s: float, payload: SpanStartPayload | SpanEndPayload, attributes: dict[str, Any]
) -> StructuredLogEvent:
    return StructuredLogEvent(
        trace_id="t", span_id=span_id, timestamp=at(at_s), attributes=attributes or None, payload=payload
    )


def line(span_id: str, at_s: float, message: str = "hello", **attributes: Any) -> UnstructuredLogEvent:
    return UnstructuredLogEvent(
        trace_id="t",
        span_id=span_id,
        timestamp=at(at_s),
        message=message,
        severity=LogSeverity.warn,
        attributes=attributes or None,
    )


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)
