"""The ids of the running trace in the log of a program that runs a stack in process."""

from __future__ import annotations

import logging

from llamastack.provider.context import current_context

__all__ = ["TraceIdFilter"]


class TraceIdFilter(logging.Filter):
    """Gives each record `trace_id`, `span_id` and `request_id`, "" where there is none. It drops no record.

    Add it to a handler, not to a logger, so that the records of all loggers get them:
    `handler.addFilter(TraceIdFilter())`, and `%(trace_id)s` in the handler's format. The log of `llamastack run` has
    the ids by itself.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        context = current_context()
        trace = context.traceparent or ""
        vars(record).update(trace_id=trace[3:35], span_id=trace[36:52], request_id=context.request_id or "")
        return True
