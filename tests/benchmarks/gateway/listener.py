"""A plugin that is told of every request, as one that counts them for metrics would be."""

from __future__ import annotations

from llamastack.provider import hookimpl
from llamastack.provider.hookspecs import FinishedRequest

seconds_by_status: dict[int, float] = {}


@hookimpl
def llamastack_request_finished(request: FinishedRequest) -> None:
    """Add up the seconds of requests."""
    seconds_by_status[request.status] = seconds_by_status.get(request.status, 0.0) + request.duration_s
