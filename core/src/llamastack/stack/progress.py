"""What a provider reports of long work, such as fetching a model; a start without progress is given up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
from anyio.abc import TaskGroup

from llamastack.api.inspect import ProviderProgress
from llamastack.provider.deps import Progress

_COUNTS_S = 10.0


class ProgressWatch:
    """Takes the reports of one provider.

    timeout_s: seconds that a start may take without a report. on_progress: called with each report.
    """

    def __init__(self, timeout_s: float, on_progress: Callable[[Progress], None]) -> None:
        self._timeout_s = timeout_s
        self._on_progress = on_progress
        self._last: tuple[float, Progress] | None = None
        self._begun_at = -math.inf
        self._starting = False

    def report(self, progress: Progress) -> None:
        self._last = (anyio.current_time(), progress)
        self._on_progress(progress)

    def shown(self) -> ProviderProgress | None:
        """What the provider is at. Work that was not reported for a while has ended, one way or the other."""
        at, progress = self._last or (-math.inf, None)
        if progress is None or progress.done == progress.total or anyio.current_time() - at > _COUNTS_S:
            return None
        return ProviderProgress(task=progress.task, done=progress.done, total=progress.total, unit=progress.unit)

    @contextmanager
    def limiting(self, group: TaskGroup) -> Iterator[None]:
        """Ends its block when there is no report for too long. Raises TimeoutError then."""
        self._starting, self._begun_at = True, anyio.current_time()
        with anyio.CancelScope() as scope:
            group.start_soon(self._limit, scope)
            try:
                yield
            finally:
                self._starting = False
        if scope.cancelled_caught:
            raise TimeoutError(f"did not start within {self._timeout_s:g} s")

    async def _limit(self, scope: anyio.CancelScope) -> None:
        while self._starting:
            reported_at = self._last[0] if self._last else -math.inf
            left = max(self._begun_at, reported_at) + self._timeout_s - anyio.current_time()
            if left <= 0:
                scope.cancel()
                return
            await anyio.sleep(left)
