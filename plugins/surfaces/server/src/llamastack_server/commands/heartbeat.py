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

# Makes a worker write what its threads are doing. Windows, where there is one worker only, has no such signal.
_TELL = getattr(signal, "SIGUSR2", signal.SIGTERM)
_BEAT = b"."
_GOODBYE = b"!"
_LONGEST_PAUSE_S = 1.0
_BEATS_PER_LIMIT = 5
# Closing files, writing the log and ending threads take a moment, in which no event loop runs.
_FLUSH_TIMEOUT_S = 15.0


def _pause_for(limit_s: float) -> float:
    return min(limit_s / _BEATS_PER_LIMIT, _LONGEST_PAUSE_S)


class Heartbeat:
    """A worker's: its event loop writes a byte, again and again.

    limit_s: as for `Pulse`.
    """

    def __init__(self, sending: Connection, limit_s: float) -> None:
        self._sending = sending
        self._pause_s = _pause_for(limit_s)
        # A parent that does not read, as it is stopped itself, must not stop its workers.
        os.set_blocking(sending.fileno(), False)
        # Before the parent ends a worker, it asks for the stacks of its threads.
        faulthandler.register(_TELL, file=sys.__stderr__ or sys.stderr, all_threads=True)

    def start(self) -> None:
        """From the event loop that is to show that it lives."""
        self._beat(asyncio.get_running_loop())

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._write(_BEAT)
        loop.call_later(self._pause_s, self._beat, loop)

    def stop(self) -> None:
        """The event loop has ended, and the process will."""
        self._write(_GOODBYE)

    def _write(self, sign: bytes) -> None:
        with suppress(OSError):  # full, or there is no parent any more
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
    """Have a process write to stderr what its threads are doing, if it still can, and end it."""
    with suppress(ProcessLookupError):
        os.kill(process_id, _TELL)
        await anyio.sleep(_LONGEST_PAUSE_S)
        os.kill(process_id, signal.SIGKILL)
