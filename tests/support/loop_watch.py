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

    not_counted: threads whose CPU time is not that of what is watched, such as those of a client and a backend.
    """

    def __init__(self) -> None:
        self.not_counted: tuple[int, ...] = ()
        self._found = HeldUp()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._before: tuple[float, tuple[int, ...]] = (0.0, ())

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
        self._tick(first=True)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.Handle._run = self._original  # type: ignore[method-assign]
        self._timer.cancel()

    def take(self) -> HeldUp:
        """What was found since the last time."""
        found, self._found = self._found, HeldUp()
        self._before = self._now()
        return found

    def _tick(self, first: bool = False) -> None:
        now = self._now()
        if not first and now[1] == self._before[1]:
            self._found.gap_s = max(self._found.gap_s, now[0] - self._before[0])
        self._before = now
        self._timer = self._loop.call_later(_TICK_S, self._tick)

    def _now(self) -> tuple[float, tuple[int, ...]]:
        """The CPU time of the process without those of the threads that do not count, and which these are."""
        others = self.not_counted
        away = sum(time.clock_gettime(time.pthread_getcpuclockid(other)) for other in others)
        return time.process_time() - away, others


def _named(callback: Callable[..., Any] | None) -> str:
    task = getattr(callback, "__self__", None)
    if isinstance(task, asyncio.Task):
        coroutine = task.get_coro()
        return f"task {getattr(coroutine, '__qualname__', coroutine)}"
    return str(getattr(callback, "__qualname__", callback))
