"""The metrics of one running stack: where they are served, and what runs beside the stack."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from llamastack.provider import hookimpl
from llamastack.provider.routes import Route, RouteGroup
from llamastack.stack import Stack
from llamastack_metrics.endpoint import private_app, public_endpoint
from llamastack_metrics.recorder import Recorder
from llamastack_metrics.scraper import Scraper
from llamastack_metrics.settings import MetricsConfig

if TYPE_CHECKING:
    from llamastack_metrics.cost_recorder import CostRecorder
    from llamastack_metrics.own_port import OwnPort
    from llamastack_metrics.worker_files import WorkerFiles

_FOLDER = "metrics"
_TIMES_OF_THE_ENDED = 10
"""The label sets that are kept of workers that have ended, by those that a worker may have."""


class StackMetrics:
    """The plugin of one stack that makes the metrics available."""

    def __init__(
        self, settings: MetricsConfig, recorder: Recorder, costs: CostRecorder | None, folder: Path | None
    ) -> None:
        self._settings = settings
        self._files = None if folder is None else _files_of_workers(folder / _FOLDER, settings)
        self._scraper = Scraper(settings, recorder, costs, self._files)

    @hookimpl
    def llamastack_routes(self, stack: Stack) -> Sequence[RouteGroup]:
        if self._settings.port is not None:
            return []
        return [RouteGroup([Route(self._settings.path, public_endpoint(stack, self._scraper.scrape))])]

    @hookimpl
    @asynccontextmanager
    async def llamastack_stack_lifespan(self, stack: Stack) -> AsyncIterator[None]:
        async with AsyncExitStack() as opened:
            await self._scraper.open(stack)
            opened.push_async_callback(self._scraper.close)
            port = self._own_port()
            listening = None if port is None else await port.take()  # outside of the tasks, so that its error is bare
            tasks = await opened.enter_async_context(anyio.create_task_group())
            opened.callback(tasks.cancel_scope.cancel)
            tasks.start_soon(self._scraper.run, name="metrics")
            if port is not None:
                tasks.start_soon(port.run, listening, name="port of metrics")
            yield

    def _own_port(self) -> OwnPort | None:
        if self._settings.port is None:
            return None
        from llamastack_metrics.own_port import OwnPort

        app = private_app(self._settings.path, self._scraper.scrape)
        lock = None if self._files is None else self._files.port_lock
        return OwnPort(self._settings.host, self._settings.port, app, lock)


def _files_of_workers(folder: Path, settings: MetricsConfig) -> WorkerFiles | None:
    """None if this process serves alone: no other Python process has started it."""
    if sys.platform == "win32":  # it allows one worker only
        return None
    from llamastack_metrics.worker_files import WorkerFiles, run_of_workers

    run = run_of_workers()
    return None if run is None else WorkerFiles(folder, run, _TIMES_OF_THE_ENDED * settings.max_series)
