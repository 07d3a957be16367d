"""Watches what a provider does to its process: whether it blocks the event loop, and what it leaves open."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import anyio

_BEAT_S = 0.01
_POLL_S = 0.005
_OPEN_FILES = next((p for p in (Path("/proc/self/fd"), Path("/dev/fd")) if p.is_dir()), None)
# Pools of the event loop and of the suite: their idle threads stay, whatever a provider does.
_POOLS = ("AnyIO worker thread", "asyncio_", "event-loop-watch")
_OWN_TASKS = ("tap", "event-loop-beat")


@dataclass
class LoopWatch:
    """longest_s: the longest time that the event loop was blocked. stack: the call stack at that time."""

    longest_s: float = 0.0
    stack: str = ""
    last_beat: float = field(default_factory=time.monotonic)

    def beat(self) -> None:
        """The event loop runs."""
        self.last_beat = time.monotonic()

    def blocked(self, seconds: float, stack: str) -> None:
        """It did not run for so long."""
        self.longest_s, self.stack = seconds, stack


@contextmanager
def own_temporary_folder() -> Iterator[Path]:
    """A folder in the place of the system's for temporary files, for this process and those that it starts."""
    with (
        tempfile.TemporaryDirectory(prefix="llamastack-conformance-", ignore_cleanup_errors=True) as made,
        mock.patch.object(tempfile, "tempdir", made),
        mock.patch.dict(os.environ, TMPDIR=made),
    ):
        yield Path(made)


@contextmanager
def unclosed() -> Iterator[list[str]]:
    """Objects that the block drops and does not close: the texts of their ResourceWarnings, when the block ends.

    Such an object is closed only when it is collected, which may be late.
    """
    found: list[str] = []
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        yield found
        gc.collect()
        found += [str(warning.message) for warning in caught if issubclass(warning.category, ResourceWarning)]


@contextmanager
def watched_loop() -> Iterator[LoopWatch]:
    """Watch this event loop from a thread.

    Time does not count if a thread was ready to run and the machine was busy with other processes.
    """
    watch = LoopWatch()
    loop_thread, loop = threading.get_ident(), asyncio.get_running_loop()
    scheduling = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
    done = threading.Event()

    def look() -> None:
        stolen, looked = 0.0, time.monotonic()
        beat, queued = watch.last_beat, _queued_s(scheduling)
        while not done.wait(_BEAT_S):
            now = time.monotonic()
            if watch.last_beat != beat:
                beat, stolen, queued = watch.last_beat, 0.0, _queued_s(scheduling)
            stolen += max(0.0, now - looked - 2 * _BEAT_S)
            looked = now
            still = now - beat - max(stolen, _queued_s(scheduling) - queued)
            if still > watch.longest_s:
                frame = sys._current_frames().get(loop_thread)
                watch.blocked(still, "".join(traceback.format_stack(frame)[-4:]) if frame else "")

    async def beat() -> None:
        while True:
            watch.beat()
            await asyncio.sleep(_BEAT_S)

    beating = loop.create_task(beat(), name="event-loop-beat")
    thread = threading.Thread(target=look, name="event-loop-watch", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        beating.cancel()
        done.set()
        thread.join()


def _queued_s(scheduling: Path) -> float:
    """Seconds that a thread has waited for a CPU (Linux, scheduler/sched-stats.rst of its documentation); else 0."""
    try:
        return int(scheduling.read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


@dataclass(frozen=True)
class Holdings:
    """What this process holds: tasks and threads by name, and open files and sockets by number."""

    tasks: frozenset[tuple[int, str]]
    threads: frozenset[tuple[int, str]]
    files: frozenset[tuple[str, str]]

    @classmethod
    def now(cls) -> Holdings:
        tasks = {(id(task), task.get_name()) for task in asyncio.all_tasks() if not task.done()}
        threads = {(t.ident or 0, t.name) for t in threading.enumerate() if not t.name.startswith(_POOLS)}
        return cls(frozenset(tasks), frozenset(threads), frozenset(_open_files()))

    def beyond(self, before: Holdings) -> list[str]:
        """What is held now and was not held before, as text."""
        found = [f"task {name}" for _, name in self.tasks - before.tasks if not name.startswith(_OWN_TASKS)]
        found += [f"thread {name}" for _, name in self.threads - before.threads]
        found += [f"open {target}" for _, target in self.files - before.files]
        return sorted(found)


def _open_files() -> Iterator[tuple[str, str]]:
    if _OPEN_FILES is None:
        return
    for number in os.listdir(_OPEN_FILES):
        try:
            yield number, os.readlink(_OPEN_FILES / number)
        except OSError:  # the descriptor that this listing had open
            continue


async def becomes(condition: Callable[[], object], within_s: float) -> bool:
    """Whether `condition` becomes true within the time. It is polled, because there is no event to wait for."""
    with anyio.move_on_after(within_s):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(_POLL_S)
    return bool(condition())


async def left_after(before: Holdings, within_s: float) -> list[str]:
    """What is still held beyond `before` after some time for it to go away."""
    await becomes(lambda: not Holdings.now().beyond(before), within_s)
    return Holdings.now().beyond(before)
