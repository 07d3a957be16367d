"""Spans for tests."""

from __future__ import annotations

from pathlib import Path

from llamastack_provider_meta_reference.telemetry.schema import open_file
from llamastack_provider_meta_reference.telemetry.trace_store import TraceStore
from llamastack_telemetry import Attributes, FinishedSpan

BEGAN_NS = 1_767_323_045_000_000_000
"""2026-01-02T03:04:05Z."""
SECOND_NS = 1_000_000_000


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
            attributes=call_attributes | (attributes or {}),
        ),
        FinishedSpan(trace_id, root, None, "POST /v1/chat/completions", "server", start, start + 3 * SECOND_NS, "ok"),
    ]
