"""Shows the progress of providers on stderr while a person waits."""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO, TypeVar, runtime_checkable

import anyio
import click

from llamastack.provider.commands import Preparing
from llamastack.provider.control_characters import one_line
from llamastack.provider.deps import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from llamastack.client import LlamaStackClient

_LOGGER = logging.getLogger("llamastack.cli")
_Key = tuple[str, str, str]
_Result = TypeVar("_Result")
_ASK_EVERY_S = 0.5


@runtime_checkable
class _Redirectable(Protocol):
    """A handler with a stream, like the standard library's."""

    def setStream(self, stream: TextIO) -> TextIO | None: ...


class ProgressReport:
    """Shows the progress of all providers: bars on a terminal while a person waits, else a line at start and end.

    A task ends when `done` reaches `total`, or when the waiting ends.
    """

    def __init__(self) -> None:
        self._bars: RichProgress | None = None
        self._running: dict[_Key, TaskID | None] = {}
        self._finished: set[_Key] = set()

    def __call__(self, provider: Preparing, progress: Progress) -> None:
        key = (provider.api, provider.provider_id, progress.task)
        complete = progress.total is not None and progress.done >= progress.total
        if key not in self._running and not complete:
            self._finished.discard(key)
            self._running[key] = self._begin(key, progress)
        elif complete and key not in self._running and key in self._finished:
            return
        bar = self._running.get(key)
        if self._bars is not None and bar is not None:
            self._bars.update(bar, completed=progress.done, total=progress.total)
        if complete:
            self._end(key)

    def _begin(self, key: _Key, progress: Progress) -> TaskID | None:
        if self._bars is None:
            click.echo(f"{_shown(key)} ...", err=True)
            return None
        return self._bars.add_task(_shown(key), total=progress.total, unit=progress.unit)

    def _end(self, key: _Key) -> None:
        self._running.pop(key, None)
        self._finished.add(key)
        if self._bars is None:
            click.echo(f"{_shown(key)}: done", err=True)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Show progress while the block runs."""
        if not sys.stderr.isatty():
            yield
        else:
            with self._live_bars():
                yield
        self._running.clear()

    @contextmanager
    def _live_bars(self) -> Iterator[None]:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed:,.0f} {task.fields[unit]}", markup=False),
            TimeElapsedColumn(),
        )
        handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, _Redirectable)]
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            self._bars = bars
            # While bars are drawn, rich replaces sys.stderr and prints log lines above the bars.
            streams = [handler.setStream(sys.stderr) for handler in handlers]
            try:
                yield
            finally:
                self._bars = None
                for handler, stream in zip(handlers, streams, strict=True):
                    if stream is not None:
                        handler.setStream(stream)


async def watched(client: LlamaStackClient, call: Awaitable[_Result]) -> _Result:
    """The result of a call of `client`. Meanwhile the progress of the server's providers is shown."""
    report = ProgressReport()
    results: list[_Result] = []
    failure: Exception | None = None

    async def watch() -> None:
        while True:
            await anyio.sleep(_ASK_EVERY_S)
            try:
                health = await client.inspect.health()
            except Exception as error:
                # A failure to show progress must not disturb the call; the call itself reports a lost server.
                _LOGGER.debug("no progress is shown: %s", error)
                return
            for provider in health.providers:
                if provider.progress is not None:
                    its = provider.progress
                    report(provider, Progress(its.task, its.done, its.total, its.unit))

    with report.waiting():
        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            try:
                results.append(await call)
            except Exception as error:  # raised below, so that it is not wrapped in a group
                failure = error
            group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return results[0]


def _shown(key: _Key) -> str:
    api, provider_id, task = key
    return one_line(f"{api} {provider_id}: {task}")
