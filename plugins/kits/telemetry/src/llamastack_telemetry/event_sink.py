"""Hands spans to a provider of the telemetry API that takes events alone."""

from __future__ import annotations

from collections.abc import Sequence

from llamastack.api.telemetry import SpanEndPayload, SpanStartPayload, SpanStatus, StructuredLogEvent, Telemetry
from llamastack_telemetry.spans import FinishedSpan, moment


class EventSink:
    """Logs the beginning and the end of each span with `log_event`."""

    def __init__(self, provider: Telemetry) -> None:
        self._provider = provider
        self._batch: Sequence[FinishedSpan] = ()
        self._logged = 0

    async def export_spans(self, spans: Sequence[FinishedSpan]) -> None:
        """Log spans. When the same batch comes again, it goes on where it was: a slow provider takes it in parts."""
        if self._batch is not spans:
            self._batch, self._logged = spans, 0
        for span in spans[self._logged :]:
            attributes = dict(span.attributes)
            end = SpanEndPayload(status=SpanStatus.error if span.status == "error" else SpanStatus.ok)
            for at_ns, payload in (
                (span.start_ns, SpanStartPayload(name=span.name, parent_span_id=span.parent_id)),
                (span.end_ns, end),
            ):
                await self._provider.log_event(
                    StructuredLogEvent(
                        trace_id=span.trace_id,
                        span_id=span.span_id,
                        timestamp=moment(at_ns),
                        attributes=attributes,
                        payload=payload,
                    )
                )
            self._logged += 1
