"""What is read when somebody asks: health, resources, jobs, spans, the delay of the event loop."""

from __future__ import annotations

import importlib
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import anyio

from llamastack.api.inspect import HealthInfo, ProviderStatus
from llamastack.api.pagination import Page
from llamastack.provider.context import STACK_ITSELF, use_context
from llamastack.stack import Stack
from llamastack_metrics import definitions as m
from llamastack_metrics.definitions import Labels
from llamastack_metrics.snapshots import Values

_LOGGER = logging.getLogger("llamastack.metrics")
TELEMETRY = "llamastack_telemetry"
"""The package whose spans are counted, if it is installed."""


async def health_gauges(stack: Stack) -> Values:
    """Whether each provider is healthy, and how many resources it serves."""
    with use_context(principal=STACK_ITSELF):  # whoever may scrape sees all providers
        health: HealthInfo = await stack.api("inspect").health()
    healthy: dict[Labels, float] = {}
    resources: dict[Labels, float] = {}
    for each in health.providers:
        healthy[each.api, each.provider_id, each.provider_type] = int(each.status is ProviderStatus.healthy)
        if each.serves is not None:
            resources[each.api, each.provider_id] = each.serves
    return {m.HEALTHY.name: healthy, m.RESOURCES.name: resources}


# ---- spans -----------------------------------------------------------------------------------------------------------


class _SpanCounts(Protocol):
    """What `llamastack_telemetry.pipeline_counts(stack)` gives, by provider_id."""

    exported: Mapping[str, int]
    dropped: Mapping[str, int]


def span_counters(stack: Stack) -> Values:
    """The counters of llamastack-telemetry, which is installed, if the stack has traces."""
    counts: _SpanCounts | None = importlib.import_module(TELEMETRY).pipeline_counts(stack)
    if counts is None:
        return {}
    return {
        m.SPANS_DROPPED.name: {(provider,): number for provider, number in counts.dropped.items()},
        m.SPANS_EXPORTED.name: {(provider,): number for provider, number in counts.exported.items()},
    }


# ---- the event loop --------------------------------------------------------------------------------------------------


class LoopLag:
    """The longest delay of a timer in the last `seconds` seconds, looked at once a second."""

    def __init__(self, seconds: int = 15) -> None:
        self._delays: deque[float] = deque(maxlen=seconds)

    async def tick(self) -> None:
        """Wait for a second."""
        due = time.perf_counter() + 1
        await anyio.sleep(1)
        self._delays.append(max(0.0, time.perf_counter() - due))

    def longest_s(self) -> float:
        """In seconds."""
        return max(self._delays, default=0.0)


# ---- jobs ------------------------------------------------------------------------------------------------------------


class _Job(Protocol):
    status: str


_JOBS = "jobs"
_FRESH_S = 60.0
_STALE_S = 180.0
_WAIT_S = 0.5
_PAGE = 200
_MOST_JOBS = 20_000


class JobCounts:
    """Jobs by status. Reading 10,000 takes 0.3 s of CPU, so a scrape gets numbers that may be a minute old."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._counts: dict[Labels, float] = {}
        self._read_at = float("-inf")
        self._wanted = anyio.Event()
        self._news = anyio.Event()
        self._failed = False

    async def gauges(self) -> Values:
        """The numbers, if they are at most three minutes old. Reading them again has begun if they are not fresh."""
        if _JOBS not in self._stack.apis:
            return {}
        if time.monotonic() - self._read_at > _FRESH_S:
            self._wanted.set()
            with anyio.move_on_after(_WAIT_S):
                await self._news.wait()
        if time.monotonic() - self._read_at > _STALE_S:
            return {}
        return {m.JOBS.name: dict(self._counts)}

    async def run(self) -> None:
        """Read them whenever they are wanted, until it is cancelled."""
        while True:
            await self._wanted.wait()
            await self._read()
            self._wanted = anyio.Event()
            self._news.set()
            self._news = anyio.Event()

    async def _read(self) -> None:
        counts: Counter[str] = Counter({"queued": 0, "running": 0, "completed": 0, "failed": 0, "cancelled": 0})
        try:
            for instance in self._stack.instances[_JOBS]:
                # Not through the API: the metrics would count their own calls.
                list_jobs: Callable[..., Awaitable[Page[_Job]]] | None = getattr(instance.provider, "list_jobs", None)
                if list_jobs is None:
                    return  # it is down
                after, seen = None, 0
                while seen < _MOST_JOBS:
                    page = await list_jobs(limit=_PAGE, after=after)
                    counts.update(str(job.status) for job in page.data)
                    seen += len(page.data)
                    after = page.last_id
                    if not page.has_more:
                        break
        except Exception:
            if not self._failed:
                _LOGGER.exception("jobs cannot be counted")
            self._failed = True
            return
        self._failed = False
        self._counts = {(status,): number for status, number in counts.items()}
        self._read_at = time.monotonic()
