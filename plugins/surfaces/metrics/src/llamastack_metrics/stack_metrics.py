"""The metrics of one running stack: what answers a scrape, and what runs beside the stack."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio

from llamastack.provider import hookimpl
from llamastack.provider.routes import Route, RouteGroup
from llamastack.stack import Stack
from llamastack_metrics.endpoint import public_endpoint
from llamastack_metrics.recorder import Recorder
from llamastack_metrics.scraper import Scraper
from llamastack_metrics.settings import MetricsConfig


class StackMetrics:
    """The plugin of one stack that makes the metrics available."""

    def __init__(self, settings: MetricsConfig, recorder: Recorder, folder: Path | None) -> None:
        self._settings = settings
        self._folder = folder
        self._scraper = Scraper(settings, recorder)

    @hookimpl
    def llamastack_routes(self, stack: Stack) -> Sequence[RouteGroup]:
        if self._settings.port is not None:
            return []
        return [RouteGroup([Route(self._settings.path, public_endpoint(stack, self._scraper.scrape))])]

    @hookimpl
    @asynccontextmanager
    async def llamastack_stack_lifespan(self, stack: Stack) -> AsyncIterator[None]:
        async with AsyncExitStack() as opened:
            tasks = await opened.enter_async_context(anyio.create_task_group())
            opened.callback(tasks.cancel_scope.cancel)
            self._scraper.attach(stack)
            opened.callback(self._scraper.detach)
            tasks.start_soon(self._scraper.run, name="metrics")
            yield
