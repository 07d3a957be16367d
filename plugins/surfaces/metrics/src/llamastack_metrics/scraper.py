"""Answers scrapes. What takes long is done in a thread, one scrape at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from llamastack.provider.errors import ServerBusyError
from llamastack.stack import Stack
from llamastack_metrics import definitions as m
from llamastack_metrics.definitions import Labels
from llamastack_metrics.recorder import Cell, Recorder
from llamastack_metrics.settings import MetricsConfig
from llamastack_metrics.snapshots import Snapshot
from llamastack_metrics.sources import JobCounts, LoopLag, health_gauges, span_counters

if TYPE_CHECKING:
    from llamastack_metrics.exposition import Exposition


class Scraper:
    """The metrics of a stack in this process, and those of the stack's other workers."""

    def __init__(self, settings: MetricsConfig, recorder: Recorder) -> None:
        self._settings = settings
        self._recorder = recorder
        self._lag = LoopLag()
        self._stack: Stack | None = None
        self._jobs: JobCounts | None = None
        # Not shared with anything else: a scrape must not wait for a pool that is full.
        self._thread: anyio.CapacityLimiter | None = None

    # ---- life --------------------------------------------------------------------------------------------------------

    def attach(self, stack: Stack) -> None:
        """The stack runs."""
        self._stack = stack
        self._jobs = JobCounts(stack)
        self._thread = anyio.CapacityLimiter(1)

    def detach(self) -> None:
        """The stack stops."""
        self._stack = self._jobs = self._thread = None

    async def run(self) -> None:
        """What runs beside the stack, until it is cancelled."""
        assert self._jobs is not None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._jobs.run, name="metrics of jobs")
            while True:
                await self._lag.tick()

    # ---- scrapes -----------------------------------------------------------------------------------------------------

    async def scrape(self, accept: str, accept_encoding: str) -> Exposition:
        """Everything that is known now. Raises ServerBusyError while the stack starts or stops."""
        if self._stack is None or self._jobs is None or self._thread is None:
            raise ServerBusyError("there are no metrics while the stack starts or stops")
        own = await self._snapshot(self._stack)
        jobs = await self._jobs.gauges()
        return await anyio.to_thread.run_sync(self._expose, own, jobs, accept, accept_encoding, limiter=self._thread)

    async def _snapshot(self, stack: Stack) -> Snapshot:
        recorder = self._recorder
        health = await health_gauges(stack)
        running = recorder.running.items()
        return Snapshot(
            _copied(recorder.requests),
            _copied(recorder.calls),
            {
                m.REGISTERED.name: dict(recorder.registered),
                m.UNREGISTERED.name: dict(recorder.unregistered),
                **span_counters(stack),
            },
            {
                **health,
                m.IN_FLIGHT.name: {labels: calls for labels, (calls, _) in running},
                m.OPEN_STREAMS.name: {labels: streams for labels, (_, streams) in running},
                m.LOOP_LAG.name: {(): self._lag.longest_s()},
                m.WORKERS.name: {(): 1},
            },
        )

    def _expose(
        self, own: Snapshot, jobs: dict[str, dict[Labels, float]], accept: str, accept_encoding: str
    ) -> Exposition:
        from llamastack_metrics.exposition import expose, process_values  # in this thread: it takes a while

        counters, gauges = process_values()
        own.counters.update(counters)
        own.gauges.update(gauges)
        own.gauges.update(jobs)
        return expose(own, self._settings, accept, accept_encoding)


def _copied(cells: dict[Labels, Cell]) -> dict[Labels, Cell]:
    return {labels: cell.copy() for labels, cell in cells.items()}
