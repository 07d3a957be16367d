"""The ids of the current request, as they stand in the lines of the log."""

from __future__ import annotations

import re
from typing import NamedTuple

from llamastack.provider.context import RequestContext, current_context

# Checked again, because a program that uses a stack in its own process sets the context itself.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


class RequestIds(NamedTuple):
    """trace_id, span_id: as in the context's `traceparent`. None if the request has none."""

    request_id: str | None = None
    trace_id: str | None = None
    span_id: str | None = None


def current_ids() -> RequestIds:
    """Those of the request that is being served; none outside of requests."""
    return ids_of(current_context())


def ids_of(context: RequestContext) -> RequestIds:
    """Those of one request."""
    if context.traceparent is None:
        return RequestIds(context.request_id)
    found = _TRACEPARENT.fullmatch(context.traceparent)
    return RequestIds(context.request_id, *(found.groups() if found is not None else ()))
