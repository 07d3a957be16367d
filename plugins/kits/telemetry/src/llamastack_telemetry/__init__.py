"""Traces of a stack: what its requests and calls are as spans, and what a provider implements to get them.

A provider of the telemetry API gets them by `SpanSink`. A provider that has `log_event` alone gets them as events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamastack.lazy_imports import lazy_getattr

__all__ = [
    "AttributeValue",
    "Attributes",
    "Cost",
    "FinishedSpan",
    "PipelineCounts",
    "PriceList",
    "SpanSink",
    "TimedEvent",
    "TraceIdFilter",
    "has_prices",
    "moment",
    "pipeline_counts",
    "prices_of",
]

if TYPE_CHECKING:
    from llamastack_telemetry.log_ids import TraceIdFilter
    from llamastack_telemetry.plugin import has_prices, pipeline_counts, prices_of
    from llamastack_telemetry.price_list import PriceList
    from llamastack_telemetry.prices import Cost
    from llamastack_telemetry.sink_queue import PipelineCounts
    from llamastack_telemetry.spans import Attributes, AttributeValue, FinishedSpan, SpanSink, TimedEvent, moment
else:
    __getattr__ = lazy_getattr(
        __name__, (".spans", ".sink_queue", ".prices", ".price_list", ".plugin", ".log_ids"), __all__
    )
