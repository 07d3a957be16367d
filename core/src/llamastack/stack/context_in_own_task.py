"""Something that is entered and left in one task of its own, whichever tasks ask for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import anyio


class OwnTask:
    """Holds an async context open.

    Task groups and cancel scopes must be left in the task that entered them. A notebook, or a fixture of a test,
    starts a thing in one task and stops it in another.

    opened: makes the context, each time that it is started.
    what: what it is, for errors.
    """

    def __init__(self, opened: Callable[[], AbstractAsyncContextManager[None]], what: str) -> None:
        self._opened = opened
        self._what = what
        self._task: asyncio.Task[None] | None = None
        self._scope: anyio.CancelScope | None = None
        self._started = self._stop = self._ended = anyio.Event()
        self._failure: BaseException | None = None

    @property
    def runs(self) -> bool:
        """Whether it has been started, and not stopped; also while it starts and while it stops."""
        return self._task is not None and not self._task.done()

    async def start(self) -> None:
        """Enter the context; it is left again if the caller is cancelled meanwhile.

        Raises what entering raises, RuntimeError if it runs already.
        """
        if self.runs:
            raise RuntimeError(f"{self._what} runs already")
        self._scope = scope = anyio.CancelScope()
        self._started, self._stop, self._ended = anyio.Event(), anyio.Event(), anyio.Event()
        self._failure = None
        self._task = asyncio.create_task(self._hold(scope), name=self._what)
        try:
            await self._started.wait()
        except BaseException:
            await self._end()
            raise
        if self._failure is not None:
            await self._end()
            self._raise_failure()
        if self._stop.is_set():
            raise RuntimeError(f"{self._what} was stopped while it started")

    async def stop(self) -> None:
        """Leave the context, and wait until it is left. Does nothing if it does not run.

        Raises what leaving raises, RuntimeError in another event loop than it was started in.
        """
        if self._task is None or self._task.done():
            return
        if asyncio.get_running_loop() is not self._task.get_loop():
            raise RuntimeError(f"{self._what} runs in another event loop; stop it there")
        await self._end()
        self._raise_failure()

    async def _end(self) -> None:
        self._stop.set()
        if self._scope is not None and not self._started.is_set():
            self._scope.cancel()
        with anyio.CancelScope(shield=True):
            await self._ended.wait()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # it and this frame would hold each other

    async def _hold(self, scope: anyio.CancelScope) -> None:
        try:
            with scope:
                async with self._opened():
                    self._started.set()
                    await self._stop.wait()
        except BaseException as error:  # `start` or `stop` raises it
            self._failure = error
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._started.set()
            self._ended.set()
