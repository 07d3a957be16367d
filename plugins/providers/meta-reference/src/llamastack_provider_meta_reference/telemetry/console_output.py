"""Lines on stdout that never wait long: what a slow reader does not take is dropped and counted."""

from __future__ import annotations

import logging
import os
import select
import sys
import time
from collections.abc import Sequence

from llamastack.provider.redaction import without_known_secrets

_LOGGER = logging.getLogger("llamastack.telemetry")
_PIECE = 4096
"""Bytes that a pipe takes without blocking when it takes any: PIPE_BUF of Linux."""
_LONGEST_WAIT_S = 0.5
"""For all the lines of a batch."""
_REPORT_EVERY_S = 60.0


class ConsoleOutput:
    """Writes to a file descriptor, for one thread at a time. Secrets are struck out.

    descriptor: of stdout by default. After a write has failed, such as to a closed pipe, nothing is written any more.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = _descriptor_of_stdout() if descriptor is None else descriptor
        self._rest = b""  # of a line that has begun, at most one
        self._is_stalled = self._is_closed = False
        self.dropped = 0
        """How many lines are lost since the start."""
        self._reported = 0
        self._reported_at = time.monotonic()

    def write(self, lines: Sequence[str]) -> None:
        """Write lines. Drop those that are not taken in half a second, and all while the reader stands still."""
        if self._is_closed:
            self.dropped += len(lines)
        elif lines:
            self._write(lines)
        if time.monotonic() - self._reported_at >= _REPORT_EVERY_S:
            self._report()

    def close(self) -> None:
        """Log how many lines are lost. The descriptor stays open."""
        self._lose(0)
        self._is_closed = True
        self._report()

    def _report(self) -> None:
        if self.dropped != self._reported:
            _LOGGER.warning("the console did not take %d lines of traces since the start; they are lost", self.dropped)
        self._reported, self._reported_at = self.dropped, time.monotonic()

    def _write(self, lines: Sequence[str]) -> None:
        begun = 0
        give_up_at = time.monotonic() + (0 if self._is_stalled else _LONGEST_WAIT_S)
        try:
            for line in lines:
                if not self._has_written_rest(give_up_at):
                    self._stall(len(lines) - begun)
                    return
                self._rest = without_known_secrets(line).encode("utf-8", "replace") + b"\n"
                begun += 1
            if not self._has_written_rest(give_up_at):
                self._stall(0)
                return
        except OSError as error:
            self._is_closed = True
            self._lose(len(lines) - begun)
            _LOGGER.warning("traces are no longer written to the console: %s", error.strerror)
            return
        if self._is_stalled:
            _LOGGER.warning("the console takes lines of traces again; %d are lost", self.dropped)
            self._reported = self.dropped
        self._is_stalled = False

    def _has_written_rest(self, give_up_at: float) -> bool:
        while self._rest:
            if not _can_write(self._descriptor, give_up_at - time.monotonic()):
                return False
            written = os.write(self._descriptor, self._rest[:_PIECE])
            self._rest = self._rest[written:]
        return True

    def _lose(self, lines: int) -> None:
        """Count lines, and the one that has begun, as lost."""
        self.dropped += lines + bool(self._rest)
        self._rest = b""

    def _stall(self, lost: int) -> None:
        self.dropped += lost
        if not self._is_stalled:
            _LOGGER.warning("the console takes no lines of traces; they are dropped until it does")
        self._is_stalled = True


def _can_write(descriptor: int, wait_s: float) -> bool:
    if not hasattr(select, "poll"):  # Windows, where consoles do not stand still for long
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(max(0, wait_s * 1000)))


def _descriptor_of_stdout() -> int:
    """Raises OSError if the process has no stdout."""
    if sys.__stdout__ is None:
        raise OSError("this process has no stdout, which the sinks 'console' and 'console-json' need")
    return sys.__stdout__.fileno()
