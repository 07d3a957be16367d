"""The server's log: one line per record, with the request's id, for libraries and plugins, too."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import TextIO

from llamastack.provider.context import current_context
from llamastack.provider.control_characters import indented, one_line
from llamastack.provider.redaction import without_known_secrets
from llamastack_server.log_repeats import Held, Repeats

LEVEL_VARIABLE = "LLAMASTACK_LOG_LEVEL"
REPEATS_VARIABLE = "LLAMASTACK_LOG_REPEATS"
_EVERYBODY = logging.getLogger()
_ROOT = logging.getLogger("llamastack")
_ACCESS = logging.getLogger("llamastack.access")
_SERVER = logging.getLogger("llamastack.server")
_MOST_WAITING = 10_000  # lines
_LONGEST_MESSAGE = 16_384  # characters
_LONGEST_PATH = 1024  # characters
_GATHERED_FOR_S = 0.05
_FLUSH_TIMEOUT_S = 2.0
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class _Formatter(logging.Formatter):
    """Writes lines with the request's id and, if there are several workers, the worker's name.

    A message is always one line, and its traceback follows indented, so text from outside can neither look like a line
    of the log nor control the terminal. The text of the time is made once per second. Secrets are redacted in every
    record.
    """

    def __init__(self, worker: str | None) -> None:
        self.named = f" {worker}" if worker else ""
        super().__init__()
        self._second = (0, "")

    def format(self, record: logging.LogRecord) -> str:
        line = self.line(record.created, record.levelname, record.name, self.request(), self.message(record))
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        for more in (record.exc_text, record.stack_info):
            if more:
                line += f"\n{indented(_cut(without_known_secrets(more)))}"
        return line

    def line(self, since_epoch_s: float, level: str, logger: str, request: str, message: str) -> str:
        return f"{self.time(since_epoch_s)} {level} {one_line(logger)}{self.named}{request} {message}"

    def message(self, record: logging.LogRecord) -> str:
        # For the log of providers, too. Before the message is cut, because a cut secret would not be found.
        return one_line(_cut(without_known_secrets(record.getMessage().rstrip())))

    def time(self, since_epoch_s: float) -> str:
        second = int(since_epoch_s)
        if second != self._second[0]:
            self._second = (second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second)))
        return f"{self._second[1]},{int((since_epoch_s - second) * 1000):03d}"

    @staticmethod
    def request() -> str:
        current = current_context().request_id
        return f" [{current}]" if current else ""

    def access(self, line: str) -> str:
        """The same as `format` for a record of the access log with this message."""
        return f"{self.time(time.time())} INFO {_ACCESS.name}{self.named}{self.request()} {line}"

    def held(self, held: Held, window_s: float) -> str:
        """A line for the repetitions that were not written."""
        summary = f"repeated {held.number} times within {window_s:g} s, the last time as: {held.text}"
        return self.line(time.time(), held.level, held.logger, held.request, summary)


class _BatchingHandler(logging.Handler):
    """Writes in a thread of its own, so that a slow reader does not block requests.

    The thread gathers lines for a moment, because each wake-up takes the interpreter from the event loop. If nobody
    reads the output, lines are dropped and their number is written. Repeated lines are dropped too, except in the
    access log and at `DEBUG`.
    """

    def __init__(self, stream: TextIO, formatter: _Formatter, repeats: Repeats) -> None:
        super().__init__()
        self.formatter: _Formatter = formatter
        self._stream = stream
        self._repeats = repeats
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._news = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if record.levelno <= logging.DEBUG or record.name == _ACCESS.name or self._admits(record):
                self.add(self.format(record))
        except Exception:
            self.handleError(record)

    def _admits(self, record: logging.LogRecord) -> bool:
        message, request = self.formatter.message(record), self.formatter.request()
        admitted = self._repeats.admits(record, message, request, time.monotonic())
        if not admitted:
            self._wake()  # to compute how long to wait
        return admitted

    def add(self, line: str) -> None:
        """Queue a line, without its line break."""
        if self._stopping.is_set():
            self._put(line)
        elif len(self._lines) >= _MOST_WAITING:
            self._dropped += 1
        else:
            self._lines.append(line)
            self._wake()

    def _wake(self) -> None:
        if not self._news.is_set():
            self._news.set()

    def _write(self) -> None:
        while not self._stopping.is_set():
            due = self._repeats.next_over()
            self._news.wait(None if due is None else max(0.0, due - time.monotonic()))
            self._news.clear()
            self._stopping.wait(_GATHERED_FOR_S)
            self._tell_of_held(time.monotonic())
            self._put_waiting()
        self._tell_of_held(None)
        self._put_waiting()

    def _tell_of_held(self, now: float | None) -> None:
        self.acquire()  # the lock of `emit`
        try:
            self._lines.extend(self.formatter.held(held, self._repeats.window_s) for held in self._repeats.over(now))
        finally:
            self.release()

    def _put_waiting(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        dropped, self._dropped = self._dropped, 0
        if dropped:
            summary = f"{dropped} lines of the log were dropped: they came faster than they were read"
            lines.append(self.formatter.line(time.time(), "WARNING", __name__, "", summary))
        if lines:
            self._put("\n".join(lines))

    def _put(self, lines: str) -> None:
        with suppress(OSError, ValueError):  # there is no place to report it
            self._stream.write(f"{lines}\n")
            self._stream.flush()

    def setStream(self, stream: TextIO) -> TextIO:
        """Write to `stream` from now on. Returns the previous stream."""
        before, self._stream = self._stream, stream
        return before

    def stop(self) -> None:
        """Write the waiting lines, within a time limit."""
        self._stopping.set()
        self._news.set()
        self._thread.join(_FLUSH_TIMEOUT_S)


_own: _BatchingHandler | None = None


def log_access(method: str, path: str, status: int, took_s: float) -> None:
    """Write a line for one request.

    If only our own handler would get the record, none is made: making and formatting a record takes longer than the
    rest of the server's work on a request.
    """
    if not _ACCESS.isEnabledFor(logging.INFO):
        return
    line = f"{method} {path} {status} {took_s * 1000:.1f} ms"
    if len(line) > _LONGEST_PATH or not line.isprintable():
        shown = path if len(path) <= _LONGEST_PATH else f"{path[:_LONGEST_PATH]}..."
        line = one_line(f"{method} {shown} {status} {took_s * 1000:.1f} ms")
    others = _ROOT.handlers or _ACCESS.handlers or _ACCESS.filters
    if _own is not None and _EVERYBODY.handlers == [_own] and not others:
        _own.add(_own.formatter.access(line))
    else:
        _ACCESS.info("%s", line)


def set_up_logging(level: str | None = None, *, worker: str | None = None, packages: Iterable[str] = ()) -> None:
    """Log to stderr, for this package and all others in the same form.

    level: one of `LEVELS`; by default LLAMASTACK_LOG_LEVEL, else INFO. Raises ValueError for another level.
    worker: name of this process, put into every line.
    packages: packages whose loggers get that level too; all others have at least WARNING.
    """
    chosen = (level or os.environ.get(LEVEL_VARIABLE) or "INFO").upper()
    if chosen not in LEVELS:
        raise ValueError(f"{LEVEL_VARIABLE}: '{chosen}' is not one of {', '.join(LEVELS)}")
    repeats = Repeats(_most_repeats())
    global _own
    if _own is not None:
        _own.stop()
        atexit.unregister(_own.stop)
    handler = _own = _BatchingHandler(sys.stderr, _Formatter(worker), repeats)
    atexit.register(handler.stop)
    _EVERYBODY.handlers[:] = [handler]
    _EVERYBODY.setLevel(max(logging.WARNING, logging.getLevelName(chosen)))
    _ROOT.setLevel(chosen)
    log_packages(packages)
    for name in ("uvicorn.error", "uvicorn"):
        # llamastack logs itself what uvicorn logs at INFO (started, waiting, finished).
        logging.getLogger(name).setLevel("DEBUG" if chosen == "DEBUG" else "WARNING")
    logging.captureWarnings(True)
    threading.excepthook = _log_end_of_thread
    sys.unraisablehook = _log_ignored


def log_packages(packages: Iterable[str]) -> None:
    """Give the loggers of these packages, and those below them, the level of our own."""
    for name in packages:
        if name.partition(".")[0] != _ROOT.name:
            logging.getLogger(name).setLevel(_ROOT.level)


def _cut(text: str) -> str:
    if len(text) <= _LONGEST_MESSAGE:
        return text
    half = _LONGEST_MESSAGE // 2
    return f"{text[:half]} ... {len(text) - 2 * half} characters left out ... {text[-half:]}"


def _most_repeats() -> int:
    given = os.environ.get(REPEATS_VARIABLE)
    if not given:
        return 5
    if not given.isdecimal():
        raise ValueError(f"{REPEATS_VARIABLE}: '{given}' is not a whole number of lines, 0 for all")
    return int(given)


def _log_end_of_thread(arguments: threading.ExceptHookArgs) -> None:
    """Log the exception that ends a thread, because Python would write it to stderr outside the log."""
    if arguments.exc_value is None or isinstance(arguments.exc_value, SystemExit):
        return
    name = arguments.thread.name if arguments.thread is not None else "?"
    _SERVER.error("thread '%s' has ended", name, exc_info=arguments.exc_value)


def _log_ignored(arguments: sys.UnraisableHookArgs) -> None:
    """Log an exception that cannot be raised, for example in `__del__`."""
    _SERVER.error("exception ignored in %r", arguments.object, exc_info=arguments.exc_value)
