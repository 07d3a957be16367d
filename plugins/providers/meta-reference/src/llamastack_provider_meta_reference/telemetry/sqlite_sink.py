"""The SQLite file for the event loop: threads that write and read it, many events in one transaction, retention."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread

from llamastack.provider import InvalidRequestError, ProviderUnavailableError
from llamastack.provider.control_characters import one_line
from llamastack_provider_meta_reference.telemetry.parts import Part
from llamastack_provider_meta_reference.telemetry.retention import CHECK_EVERY_S, Limits, Tidying
from llamastack_provider_meta_reference.telemetry.schema import cause, open_file
from llamastack_provider_meta_reference.telemetry.trace_store import MOST_EVENTS, TraceStore
from llamastack_telemetry import FinishedSpan

_T = TypeVar("_T")
_LOGGER = logging.getLogger("llamastack.telemetry")
_BUSY_TIMEOUT_S = 5.0
"""Below the time limit of the pipeline for a batch, so that the cause of a failure is known."""
_PAUSE_S = 1.0
_MOST_GROUPED = 512
"""Events of clients that one transaction takes."""


class _Group:
    """Events of clients that are written together."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.taken: list[bool] = []
        self.is_done = False
        self.error: str | None = None

    def is_written(self, error: str | None) -> None:
        """Its callers may go on. error: why it could not be written."""
        self.is_done, self.error = True, error


class _Lane:
    """A store, and the one thread at a time that may use it."""

    def __init__(self, store: TraceStore, path: Path) -> None:
        self._store = store
        self._path = path
        self._limiter = anyio.CapacityLimiter(1)

    async def run(self, work: Callable[[TraceStore], _T]) -> _T:
        """Raises ProviderUnavailableError where the file cannot be used now."""
        try:
            return await anyio.to_thread.run_sync(work, self._store, limiter=self._limiter)
        except sqlite3.Error as error:
            message = f"the file of traces {self._path} cannot be used: {cause(error)}"
            raise ProviderUnavailableError(message) from error

    async def close(self) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._store.close, limiter=self._limiter)


class SqliteSink:
    """Keeps spans and events of clients in the file, and reads them."""

    def __init__(self, path: Path, *, own_folder: bool, limits: Limits) -> None:
        self._path = path
        self._own_folder = own_folder
        self._limits = limits
        self.note: str | None = None
        """Why nothing can be written, as far as the last write showed it."""
        # Two, so that nobody who reads waits for a write that waits for another process.
        self._reader: _Lane | None = None
        self._writer: _Lane | None = None
        self._tidying: Tidying | None = None
        self._group = _Group()
        self._writing = anyio.Lock()
        self._is_large = anyio.Event()
        self._tidying_scope = anyio.CancelScope()

    async def open(self) -> None:
        """Raises OSError, naming the file, where it cannot be used."""
        writer, reader = await anyio.to_thread.run_sync(self._open)
        self._tidying = Tidying(writer.connection, self._limits)
        self._writer, self._reader = _Lane(writer, self._path), _Lane(reader, self._path)

    def _open(self) -> tuple[TraceStore, TraceStore]:
        writer = open_file(self._path, own_folder=self._own_folder, busy_timeout_s=_BUSY_TIMEOUT_S)
        try:
            reader = open_file(self._path, own_folder=self._own_folder, busy_timeout_s=_BUSY_TIMEOUT_S)
        except OSError:
            writer.close()
            raise
        return TraceStore(writer), TraceStore(reader)

    async def close(self) -> None:
        """Close the file, when what is being written is written."""
        self._tidying_scope.cancel()
        lanes, self._reader, self._writer = (self._reader, self._writer), None, None
        for lane in lanes:
            if lane is not None:
                await lane.close()

    async def add_spans(self, spans: Sequence[FinishedSpan]) -> None:
        """Keep spans. Raises ProviderUnavailableError, after which the same spans may come again."""
        if await self._write(lambda store: store.add(spans)):
            self._is_large.set()

    async def add_part(self, part: Part) -> None:
        """Keep what a client logs; returns when it is kept. Events that come at once are written together.

        Raises InvalidRequestError where the span has too many events, ProviderUnavailableError.
        """
        if len(self._group.parts) >= _MOST_GROUPED:
            self._group = _Group()
        group = self._group
        number = len(group.parts)
        group.parts.append(part)
        async with self._writing:
            if not group.is_done:
                await self._write_group(group)
        if group.error is not None:
            raise ProviderUnavailableError(group.error)
        if not group.taken[number]:
            raise InvalidRequestError(
                f"span '{one_line(part.span_id)}' has {MOST_EVENTS} events, which is the most that is kept of a span",
                param="event",
            )

    async def _write_group(self, group: _Group) -> None:
        """Write what has gathered, also for those who wait behind a caller that is cancelled."""
        if self._group is group:
            self._group = _Group()
        with anyio.CancelScope(shield=True):
            failure: str | None = "the event was not written"
            try:
                if await self._write(lambda store: group.taken.extend(store.merge(group.parts))):
                    self._is_large.set()
                failure = None
            except ProviderUnavailableError as error:
                failure = error.message
            finally:
                group.is_written(failure)

    async def read(self, work: Callable[[TraceStore], _T]) -> _T:
        """What `work` reads from the file. Raises ProviderUnavailableError."""
        return await _opened(self._reader).run(work)

    async def tidy(self) -> None:
        """Remove what is too old or too much, now and then, until the file is closed."""
        with self._tidying_scope:
            failed = False
            while True:
                try:
                    await self._tidy_once()
                    failed = False
                except ProviderUnavailableError as error:
                    if not failed:
                        _LOGGER.warning("old traces are not removed: %s", error.message)
                    failed = True
                with anyio.move_on_after(CHECK_EVERY_S):
                    await self._is_large.wait()
                    # Where another process tidies up, or the disk is full, it stays large for a while.
                    await anyio.sleep(_PAUSE_S)
                self._is_large = anyio.Event()

    async def _tidy_once(self) -> None:
        writer, tidying = _opened(self._writer), self._tidying
        if tidying is not None and await writer.run(lambda _: tidying.claim(now=tidying.is_too_large())):
            while await writer.run(lambda _: tidying.step()):
                pass

    async def _write(self, work: Callable[[TraceStore], None]) -> bool:
        """Returns whether the file is too large afterwards."""
        tidying = self._tidying

        def write(store: TraceStore) -> bool:
            work(store)
            return tidying is not None and tidying.is_too_large()

        try:
            is_large = await _opened(self._writer).run(write)
        except ProviderUnavailableError as error:
            self.note = f"writes no traces: {error.message}"
            raise
        self.note = None
        return is_large


def _opened(lane: _Lane | None) -> _Lane:
    if lane is None:
        raise RuntimeError("the file of traces is not open")
    return lane
