"""The metrics: names, types, labels, and how the values of several workers become one.

Names follow https://prometheus.io/docs/practices/naming/: base units, `_total` for counters.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

Labels = tuple[str, ...]
"""The values of the labels of one series, in the order of the metric's labels."""


class Kind(StrEnum):
    """The type of a metric."""

    counter = "counter"
    gauge = "gauge"
    histogram = "histogram"


class Merge(StrEnum):
    """How the values of a gauge in several workers become one."""

    sum = "sum"
    lowest = "lowest"
    highest = "highest"


class Metric(NamedTuple):
    """One metric. name: of its family, without the `_total` of a counter."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    merge: Merge = Merge.sum


_CALL = ("api", "method", "model", "provider")

HTTP_REQUESTS = Metric(
    "llamastack_http_requests", Kind.counter, ("method", "route", "code"), "Requests over HTTP that have ended."
)
HTTP_DURATION = Metric(
    "llamastack_http_request_duration_seconds",
    Kind.histogram,
    ("method", "route", "code"),
    "Seconds from the head of a request to the last byte of its reply.",
)
CALLS = Metric("llamastack_provider_calls", Kind.counter, (*_CALL, "status"), "Calls of providers that have ended.")
CALL_DURATION = Metric(
    "llamastack_provider_call_duration_seconds",
    Kind.histogram,
    (*_CALL, "status"),
    "Seconds until the reply of a provider was complete.",
)
FIRST_TOKEN = Metric(
    "llamastack_time_to_first_token_seconds",
    Kind.histogram,
    _CALL,
    "Seconds until the first piece of a stream of a provider.",
)
TOKENS = Metric(
    "llamastack_tokens",
    Kind.counter,
    ("api", "model", "provider", "type"),
    "Tokens that providers reported; type is input or output.",
)
COST = Metric(
    "llamastack_cost",
    Kind.counter,
    ("model", "provider", "currency"),
    "Cost of calls of models with prices, in units of the currency.",
)
IN_FLIGHT = Metric(
    "llamastack_provider_calls_in_flight", Kind.gauge, ("api", "provider"), "Calls of providers that run now."
)
OPEN_STREAMS = Metric(
    "llamastack_open_streams", Kind.gauge, ("api", "provider"), "Streams of providers that are open now."
)
HEALTHY = Metric(
    "llamastack_provider_healthy",
    Kind.gauge,
    ("api", "provider", "provider_type"),
    "1 if the provider is healthy, else 0; with several workers, 1 if it is healthy in all of them.",
    Merge.lowest,
)
RESOURCES = Metric(
    "llamastack_resources",
    Kind.gauge,
    ("api", "provider"),
    "Models, shields or memory banks that the provider serves.",
    Merge.highest,
)
REGISTERED = Metric("llamastack_resource_registrations", Kind.counter, ("api",), "Registrations of resources by users.")
UNREGISTERED = Metric(
    "llamastack_resource_unregistrations", Kind.counter, ("api",), "Registrations that users have undone."
)
JOBS = Metric("llamastack_jobs", Kind.gauge, ("status",), "Jobs that the store keeps.", Merge.highest)
SPANS_DROPPED = Metric(
    "llamastack_spans_dropped",
    Kind.counter,
    ("provider",),
    "Spans that were lost; provider is empty for those that were lost before they were handed to a provider.",
)
SPANS_EXPORTED = Metric(
    "llamastack_spans_exported", Kind.counter, ("provider",), "Spans that telemetry providers have taken."
)
WORKERS = Metric("llamastack_workers", Kind.gauge, (), "Processes that serve this stack.")
LOOP_LAG = Metric(
    "llamastack_event_loop_lag_seconds",
    Kind.gauge,
    (),
    "Longest delay of a timer in the last 15 seconds, looked at once a second; of the slowest worker.",
    Merge.highest,
)
CPU = Metric("process_cpu_seconds", Kind.counter, (), "CPU time of all workers, those that have ended included.")
_PROCESS = (
    Metric("process_resident_memory_bytes", Kind.gauge, (), "Resident memory of all workers."),
    Metric("process_virtual_memory_bytes", Kind.gauge, (), "Virtual memory of all workers."),
    Metric("process_open_fds", Kind.gauge, (), "Open file descriptors of the worker with most.", Merge.highest),
    Metric("process_max_fds", Kind.gauge, (), "Most file descriptors that a worker may open.", Merge.lowest),
    Metric("process_start_time_seconds", Kind.gauge, (), "Start of the oldest worker, since 1970.", Merge.lowest),
)

METRICS: tuple[Metric, ...] = (
    HTTP_REQUESTS,
    HTTP_DURATION,
    CALLS,
    CALL_DURATION,
    FIRST_TOKEN,
    TOKENS,
    COST,
    IN_FLIGHT,
    OPEN_STREAMS,
    HEALTHY,
    RESOURCES,
    REGISTERED,
    UNREGISTERED,
    JOBS,
    SPANS_DROPPED,
    SPANS_EXPORTED,
    WORKERS,
    LOOP_LAG,
    CPU,
    *_PROCESS,
)
BY_NAME = {metric.name: metric for metric in METRICS}
