"""Answers scrapes. What takes long is done in a thread, one scrape at a time."""

from __future__ import annotations

import time
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

import anyio
import anyio.to_thread

from llamastack.provider.errors import ServerBusyError
from llamastack.stack import Stack
from llamastack_metrics import definitions as m
from llamastack_metrics.cost_recorder import CostRecorder
from llamastack_metrics.definitions import Labels
from llamastack_metrics.recorder import Cell, Recorder
from llamastack_metrics.settings import MetricsConfig
from llamastack_metrics.snapshots import Snapshot, Values, added_up
from llamastack_metrics.sources import TELEMETRY, JobCounts, LoopLag, health_gauges, span_counters

if TYPE_CHECKING:
    from llamastack_metrics.exposition import Exposition
    from llamastack_metrics.worker_files import WorkerFiles

_LONGEST_UNWRITTEN_S = 15.0


class _Running(NamedTuple):
    """What there is while the stack runs.

    turn: held from the moment of a snapshot until it is written, so that no older one takes the place of a newer one.
    thread: for this work alone, so that it waits for nothing else.
    """

    stack: Stack
    jobs: JobCounts
    turn: anyio.Lock
    thread: anyio.CapacityLimiter
    has_spans: bool


class Scraper:
    """The metrics of a stack in this process, and those of the stack's other workers.

    costs: None if nothing has a price. files: None if no other process serves the stack.
    """

    def __init__(
        self, settings: MetricsConfig, recorder: Recorder, costs: CostRecorder | None, files: WorkerFiles | None
    ) -> None:
        self._settings = settings
        self._costs = costs
        self._recorder = recorder
        self._files = files
        self._lag = LoopLag()
        self._running: _Running | None = None
        self._written = Snapshot()
        self._written_at = float("-inf")

    # ---- life --------------------------------------------------------------------------------------------------------

    async def open(self, stack: Stack) -> None:
        """The stack runs. Raises OSError if the files of workers cannot be used."""
        thread = anyio.CapacityLimiter(1)
        if self._files is not None:
            await anyio.to_thread.run_sync(self._files.open, limiter=thread)
        self._running = running = _Running(
            stack, JobCounts(stack), anyio.Lock(), thread, find_spec(TELEMETRY) is not None
        )
        if self._files is not None:
            await self._write_changes(running, self._files)

    async def close(self) -> None:
        """The stack stops."""
        running, self._running = self._running, None
        if running is not None and self._files is not None:
            with anyio.CancelScope(shield=True):
                async with running.turn:
                    last = await self._snapshot(running)
                    await anyio.to_thread.run_sync(_close, self._files, last, limiter=running.thread)

    async def run(self) -> None:
        """What runs beside the stack, until it is cancelled."""
        running = self._running
        assert running is not None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(running.jobs.run, name="metrics of jobs")
            while True:
                await self._lag.tick()
                if self._files is not None:
                    await self._write_changes(running, self._files)

    async def _write_changes(self, running: _Running, files: WorkerFiles) -> None:
        async with running.turn:
            snapshot = await self._snapshot(running)
            now = time.monotonic()
            if _without_lag(snapshot) != self._written or now - self._written_at > _LONGEST_UNWRITTEN_S:
                self._written, self._written_at = _without_lag(snapshot), now
                await anyio.to_thread.run_sync(_write, files, snapshot, limiter=running.thread)

    # ---- scrapes -----------------------------------------------------------------------------------------------------

    async def scrape(self, accept: str, accept_encoding: str) -> Exposition:
        """Everything that is known now. Raises ServerBusyError while the stack starts or stops."""
        running = self._running
        if running is None:
            raise ServerBusyError("there are no metrics while the stack starts or stops")
        jobs = await running.jobs.gauges()
        async with running.turn:
            own = await self._snapshot(running)
            return await anyio.to_thread.run_sync(
                self._expose, own, jobs, accept, accept_encoding, limiter=running.thread
            )

    async def _snapshot(self, running: _Running) -> Snapshot:
        recorder, of_calls = self._recorder, self._recorder.running.items()
        health = await health_gauges(running.stack)
        return Snapshot(
            _copied(recorder.requests),
            _copied(recorder.calls),
            {
                m.REGISTERED.name: dict(recorder.registered),
                m.UNREGISTERED.name: dict(recorder.unregistered),
                **({} if self._costs is None else {m.COST.name: dict(self._costs.costs)}),
                **(span_counters(running.stack) if running.has_spans else {}),
            },
            {
                **health,
                m.IN_FLIGHT.name: {labels: calls for labels, (calls, _) in of_calls},
                m.OPEN_STREAMS.name: {labels: streams for labels, (_, streams) in of_calls},
                m.LOOP_LAG.name: {(): self._lag.longest_s()},
                m.WORKERS.name: {(): 1},
            },
        )

    def _expose(self, own: Snapshot, jobs: Values, accept: str, accept_encoding: str) -> Exposition:
        from llamastack_metrics.exposition import expose  # in this thread, because it takes a while

        own = _with_process(own)
        snapshots = [own]
        if self._files is not None:
            try:
                snapshots = self._files.all_with(own)
            except TimeoutError as error:
                raise ServerBusyError(f"metrics: {error}") from error
        total = added_up(snapshots)
        total.gauges.update(jobs)
        return expose(total, self._settings, accept, accept_encoding)


def _write(files: WorkerFiles, snapshot: Snapshot) -> None:
    files.write(_with_process(snapshot))


def _close(files: WorkerFiles, last: Snapshot) -> None:
    files.close(_with_process(last))


def _copied(cells: dict[Labels, Cell]) -> dict[Labels, Cell]:
    return {labels: cell.copy() for labels, cell in cells.items()}


def _without_lag(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, gauges={**snapshot.gauges, m.LOOP_LAG.name: {}})


def _with_process(snapshot: Snapshot) -> Snapshot:
    """With the numbers of this process. It blocks."""
    from llamastack_metrics.exposition import process_values

    counters, gauges = process_values()
    return replace(snapshot, counters={**snapshot.counters, **counters}, gauges={**snapshot.gauges, **gauges})
