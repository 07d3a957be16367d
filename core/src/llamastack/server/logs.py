"""Logging of the server: one line per record, with the request's id."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TextIO

from llamastack.server.context import request_id

LEVEL_VARIABLE = "LLAMASTACK_LOG_LEVEL"
_ROOT = logging.getLogger("llamastack")
_ACCESS = logging.getLogger("llamastack.access")
_MOST_WAITING = 10_000
_GATHERED_FOR_S = 0.05
_LONGEST_GOODBYE_S = 2.0
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class _Formatter(logging.Formatter):
    """Lines with the worker's name, where there is one, and the request's id; the text of a second is made once."""

    def __init__(self, worker: str | None) -> None:
        self.named = f" {worker}" if worker else ""
        super().__init__(f"%(asctime)s %(levelname)s %(name)s{self.named}%(request)s %(message)s")
        self._second = (0, "")

    def format(self, record: logging.LogRecord) -> str:
        record.request = self.request()
        return super().format(record)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return self.time(record.created)

    def time(self, since_epoch_s: float) -> str:
        second = int(since_epoch_s)
        if second != self._second[0]:
            self._second = (second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second)))
        return f"{self._second[1]},{int((since_epoch_s - second) * 1000):03d}"

    @staticmethod
    def request() -> str:
        current = request_id.get()
        return f" [{current}]" if current else ""

    def access(self, line: str) -> str:
        """What `format` makes of a record of the access log with this message."""
        return f"{self.time(time.time())} INFO {_ACCESS.name}{self.named}{self.request()} {line}"


class _BatchingHandler(logging.Handler):
    """Leaves writing to a thread of its own: a slow reader must not hold up requests.

    The thread gathers lines for a moment, as each of its awakenings takes the interpreter from the event loop. Where
    nobody reads what is written, lines are dropped.
    """

    def __init__(self, stream: TextIO, formatter: _Formatter) -> None:
        super().__init__()
        self.formatter: _Formatter = formatter
        self._stream = stream
        self._lines: deque[str] = deque()
        self._news = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.add(self.format(record))
        except Exception:
            self.handleError(record)

    def add(self, line: str) -> None:
        """Have a line written, without its end."""
        if len(self._lines) >= _MOST_WAITING:
            return
        self._lines.append(line)
        if not self._news.is_set():
            self._news.set()

    def _write(self) -> None:
        while not self._stopping.is_set() or self._lines:
            self._news.wait()
            self._news.clear()
            self._stopping.wait(_GATHERED_FOR_S)
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            with suppress(OSError, ValueError):  # there is no place to say it
                self._stream.write("".join(f"{line}\n" for line in lines))
                self._stream.flush()

    def stop(self) -> None:
        """Write what is waiting, but not for longer than a reader can be expected to take."""
        self._stopping.set()
        self._news.set()
        self._thread.join(_LONGEST_GOODBYE_S)


_own: _BatchingHandler | None = None


def log_access(method: str, path: str, status: int, took_s: float) -> None:
    """A line for one request.

    Without a record where it would reach our own handler alone: making and formatting one takes longer than all else
    that the server does with a request.
    """
    if not _ACCESS.isEnabledFor(logging.INFO):
        return
    line = f"{method} {path} {status} {took_s * 1000:.1f} ms"
    if _own is not None and _ROOT.handlers == [_own] and not _ACCESS.handlers and not _ACCESS.filters:
        _own.add(_own.formatter.access(line))
    else:
        _ACCESS.info("%s", line)


def set_up_logging(level: str | None = None, *, worker: str | None = None) -> None:
    """Log to stderr.

    level: one of `LEVELS`; from LLAMASTACK_LOG_LEVEL when not given, else INFO. Raises ValueError for another.
    worker: name of this process, put into every line.
    """
    chosen = (level or os.environ.get(LEVEL_VARIABLE) or "INFO").upper()
    if chosen not in LEVELS:
        raise ValueError(f"{LEVEL_VARIABLE}: '{chosen}' is not one of {', '.join(LEVELS)}")
    global _own
    if _own is not None:
        _own.stop()
        atexit.unregister(_own.stop)
    handler = _own = _BatchingHandler(sys.stderr, _Formatter(worker))
    atexit.register(handler.stop)
    _ROOT.handlers[:] = [handler]
    _ROOT.propagate = False
    _ROOT.setLevel(chosen)
    for name in ("uvicorn.error", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        # What uvicorn says at INFO (started, waiting, finished) is said by us.
        logger.setLevel("DEBUG" if chosen == "DEBUG" else "WARNING")
