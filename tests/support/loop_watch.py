"""How long an event loop is held up at a time, in CPU time, so that a busy machine makes no test fail."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_TICK_S = 0.005


@dataclass
class HeldUp:
    """step_s, step: the longest step of the loop in seconds of CPU, and what it ran. gap_s: the most CPU that the
    process used between two turns of the loop, such as a thread that holds the interpreter.
    """

    step_s: float = 0.0
    step: str = ""
    gap_s: float = 0.0


class LoopWatch:
    """`with LoopWatch() as watch`, in a coroutine of the loop that is watched; then `watch.take()`.

    not_counted: threads whose CPU time is not that of what is watched, such as those of a client and a backend. They
    live as long as the watch.
    """

    def __init__(self, not_counted: tuple[int, ...] = ()) -> None:
        self._clocks = [time.pthread_getcpuclockid(thread) for thread in not_counted]
        self._found = HeldUp()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._before = 0.0
        self._looked = asyncio.Event()

    def __enter__(self) -> LoopWatch:
        self._original = original = asyncio.Handle._run
        thread_time, get_ident = time.thread_time, threading.get_ident

        def run(handle: asyncio.Handle) -> None:
            if get_ident() != self._thread:
                original(handle)
                return
            callback = getattr(handle, "_callback", None)
            began = thread_time()
            try:
                original(handle)
            finally:
                took = thread_time() - began
                if took > self._found.step_s:
                    self._found.step_s, self._found.step = took, _named(callback)

        asyncio.Handle._run = run  # type: ignore[method-assign]
        self._before = self._now()
        self._tick()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.Handle._run = self._original  # type: ignore[method-assign]
        self._timer.cancel()

    def take(self) -> HeldUp:
        """What was found since the last time."""
        found, self._found = self._found, HeldUp()
        self._before = self._now()
        return found

    async def look(self) -> None:
        """Wait until the watch has looked at the loop once more, so that it has seen what came before."""
        await self._looked.wait()

    def _tick(self) -> None:
        now = self._now()
        self._found.gap_s = max(self._found.gap_s, now - self._before)
        self._before = now
        self._looked.set()
        self._looked = asyncio.Event()
        self._timer = self._loop.call_later(_TICK_S, self._tick)

    def _now(self) -> float:
        """The CPU time of the process without that of the threads that do not count."""
        return time.process_time() - sum(map(time.clock_gettime, self._clocks))


def _named(callback: Callable[..., Any] | None) -> str:
    task = getattr(callback, "__self__", None)
    if isinstance(task, asyncio.Task):
        coroutine = task.get_coro()
        return f"task {getattr(coroutine, '__qualname__', coroutine)}"
    return str(getattr(callback, "__qualname__", callback))
