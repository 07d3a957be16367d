"""Traces of a stack: what its requests and calls are as spans, and what a provider implements to get them.

A provider of the telemetry API gets them by `SpanSink`. A provider that has `log_event` alone gets them as events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamastack.lazy_imports import lazy_getattr

__all__ = [
    "AttributeValue",
    "Attributes",
    "FinishedSpan",
    "PipelineCounts",
    "SpanSink",
    "TimedEvent",
    "moment",
    "pipeline_counts",
]

if TYPE_CHECKING:
    from llamastack_telemetry.plugin import pipeline_counts
    from llamastack_telemetry.sink_queue import PipelineCounts
    from llamastack_telemetry.spans import Attributes, AttributeValue, FinishedSpan, SpanSink, TimedEvent, moment
else:
    __getattr__ = lazy_getattr(__name__, (".spans", ".sink_queue", ".plugin"), __all__)
