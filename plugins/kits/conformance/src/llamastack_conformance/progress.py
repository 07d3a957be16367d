"""Progress of a run: a line for each tier that is done, and what runs if nothing was shown for a while."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

import pytest
from _pytest._io import TerminalWriter  # pytest has no public name for what config.get_terminal_writer() returns

if TYPE_CHECKING:
    from llamastack_conformance.report import ProviderResults, Result

SILENCE_S = 10.0
"""After so many seconds without a finished check, a line says which one runs; on a terminal after one second."""
_LOOK_S = 0.25
_ON_TERMINAL_S = 1.0
_SAVE, _RESTORE, _ERASE = "\x1b7", "\x1b8", "\x1b[K"  # DECSC, DECRC and EL of ECMA-48 terminals
_ROOM = 40


@dataclass
class Tier:
    """A tier of one suite. subject: what is under test. total: how many checks it has. statuses: of those done."""

    subject: str
    name: str
    total: int
    statuses: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)

    @property
    def done(self) -> int:
        return self.statuses.total()

    def line(self) -> str:
        """`inference=remote::acme: live 31/31, 41 s: 30 passed, 1 failed`."""
        counts = ", ".join(f"{count} {status}" for status, count in self.statuses.items())
        return f"{self.subject}: {self.name} {self.done}/{self.total}, {time.monotonic() - self.began:.0f} s: {counts}"


class Progress:
    """Shows the progress of the checks of a run. It is a plugin of pytest, in the process that has the terminal.

    reporter: pytest's. writer: its TerminalWriter. lines: whether to show a line for each tier that is done. is_check:
    whether a test, by its node id, is one whose time is watched.
    """

    def __init__(
        self, reporter: pytest.TerminalReporter, writer: TerminalWriter, *, lines: bool, is_check: Callable[[str], bool]
    ) -> None:
        self._reporter = reporter
        self._writer = writer
        self._lines = lines
        self._ready: list[Tier] = []
        self._is_check = is_check
        self._tiers: dict[tuple[str, str], Tier] = {}
        self._running: dict[str, float] = {}
        self._shown = self._began = time.monotonic()
        self._lock = threading.Lock()
        self._drawn = False
        self._out = _copy_of(writer)
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    # ---- what pytest says ----------------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> None:
        """Begin to watch."""
        if self._out is not None:
            self._thread = threading.Thread(target=self._watch, name="llamastack-progress", daemon=True)
            self._thread.start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        with self._lock:
            if self._is_check(nodeid):
                self._writer.flush()  # what comes from the thread must not come before it
                self._running[nodeid] = time.monotonic()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remove what was drawn, before pytest writes its letter."""
        with self._lock:
            self._erase()
            self._shown = time.monotonic()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        with self._lock:
            self._running.pop(nodeid, None)
            for tier in self._ready:
                self._reporter.ensure_newline()
                if self._writer.width_of_current_line:  # with -q that does nothing
                    self._writer.line()
                self._writer.line(tier.line())
                self._writer.flush()
            self._ready.clear()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        if self._out is not None:
            self._out.close()
            self._out = None

    def add(self, subject: ProviderResults, done: Result, total: int) -> None:
        """A check of a suite is done. total: how many its tier has in this suite."""
        with self._lock:
            began = time.monotonic() - done.duration_s
            tier = Tier(subject.name, done.tier, total, began=began)
            found = self._tiers.setdefault((subject.suite, done.tier), tier)
            found.statuses[done.status] += 1
            if self._lines and found.done == found.total:
                self._ready.append(found)

    # ---- what runs -----------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._done.wait(_LOOK_S):
            with self._lock:
                self._look()

    def _look(self) -> None:
        now = time.monotonic()
        if not self._running:
            return
        nodeid, since = min(self._running.items(), key=lambda item: item[1])
        text = self._what_runs(nodeid, now - since)
        if self._can_draw() and now - since >= _ON_TERMINAL_S:
            self._erase()
            self._write(f"{_SAVE}  {text[: self._room() - 2]}{_RESTORE}")
            self._drawn = True
        elif not self._can_draw() and now - self._shown >= SILENCE_S:
            self._write(f"\n{text}\n")
            self._shown = now

    def _what_runs(self, nodeid: str, seconds: float) -> str:
        tiers = ", ".join(f"{tier.name} {tier.done}/{tier.total}" for tier in self._tiers.values() if _is_open(tier))
        name = nodeid.rpartition("/")[2]
        return f"{tiers}{', ' if tiers else ''}{time.monotonic() - self._began:.0f} s: {name} runs for {seconds:.0f} s"

    def _can_draw(self) -> bool:
        """Whether there is a terminal with room to the right of the cursor."""
        return bool(self._reporter.isatty) and os.name == "posix" and self._room() >= _ROOM

    def _room(self) -> int:
        return self._writer.fullwidth - self._writer.width_of_current_line

    def _erase(self) -> None:
        if self._drawn:
            self._write(_ERASE)
            self._drawn = False

    def _write(self, text: str) -> None:
        if self._out is not None:
            self._out.write(text)
            self._out.flush()


def _is_open(tier: Tier) -> bool:
    return tier.done < tier.total


def _copy_of(writer: TerminalWriter) -> IO[str] | None:
    """The terminal, past pytest's capture, which redirects the descriptor itself while a test runs.

    None if it has no descriptor, as in a run inside another program.
    """
    try:
        descriptor = os.dup(writer._file.fileno())
    except (AttributeError, OSError, ValueError):  # io.UnsupportedOperation is an OSError
        return None
    return os.fdopen(descriptor, "w", encoding="utf-8", errors="replace")
