"""Signs of life of worker processes, so that their parent sees when one hangs."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection

import anyio

# Makes a worker write the stacks of its threads. Windows, which has only one worker, lacks this signal.
_TELL = getattr(signal, "SIGUSR2", signal.SIGTERM)
_BEAT = b"."
_GOODBYE = b"!"
_LONGEST_PAUSE_S = 1.0
_BEATS_PER_LIMIT = 5
# Time to close files, write the log and end threads, while no event loop runs.
_FLUSH_TIMEOUT_S = 15.0


def _pause_for(limit_s: float) -> float:
    return min(limit_s / _BEATS_PER_LIMIT, _LONGEST_PAUSE_S)


class Heartbeat:
    """The worker's end: its event loop writes a byte at intervals.

    limit_s: as for `Pulse`.
    """

    def __init__(self, sending: Connection, limit_s: float) -> None:
        self._sending = sending
        self._pause_s = _pause_for(limit_s)
        # A parent that is itself stopped does not read, and must not block its workers.
        os.set_blocking(sending.fileno(), False)
        # Before the parent ends a worker, it asks for the stacks of its threads.
        faulthandler.register(_TELL, file=sys.__stderr__ or sys.stderr, all_threads=True)

    def start(self) -> None:
        """Begin; called in the event loop that the parent watches."""
        self._beat(asyncio.get_running_loop())

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._write(_BEAT)
        loop.call_later(self._pause_s, self._beat, loop)

    def stop(self) -> None:
        """The event loop has ended, and the process is about to."""
        self._write(_GOODBYE)

    def _write(self, sign: bytes) -> None:
        with suppress(OSError):  # the pipe is full, or the parent has ended
            os.write(self._sending.fileno(), sign)


class Pulse:
    """The parent's view of a worker's heartbeat.

    limit_s: how long it may be silent.
    """

    def __init__(self, receiving: Connection, limit_s: float) -> None:
        self._receiving = receiving
        self.limit_s = limit_s
        os.set_blocking(receiving.fileno(), False)

    def expect_end(self) -> None:
        """The worker is about to end, so it may be silent for a short time."""
        self.limit_s = max(self.limit_s, _FLUSH_TIMEOUT_S)

    async def silence(self) -> None:
        """Wait until the worker has been silent for the limit."""
        pause = _pause_for(self.limit_s)
        silent_for = 0.0
        while silent_for < self.limit_s:
            before = time.monotonic()
            await anyio.sleep(pause)
            # After a longer pause this process itself was stopped, so the pause says nothing about the worker.
            silent_for = 0.0 if self._heard() else silent_for + min(time.monotonic() - before, 2 * pause)

    def _heard(self) -> bool:
        try:
            signs = os.read(self._receiving.fileno(), 2**16)
        except OSError:
            return False
        if _GOODBYE in signs:
            self.expect_end()
        return bool(signs)


async def end_hanging(process_id: int) -> None:
    """Make a process write the stacks of its threads to stderr, if it still can, and end it."""
    with suppress(ProcessLookupError):
        os.kill(process_id, _TELL)
        await anyio.sleep(_LONGEST_PAUSE_S)
        os.kill(process_id, signal.SIGKILL)
