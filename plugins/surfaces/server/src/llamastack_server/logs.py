"""The server's log: one line per record, with the request's ids, for libraries and plugins, too."""

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

from llamastack.provider.control_characters import one_line
from llamastack_server.log_formats import ACCESS, FIELDS, LogFormat, TextFormat, access_fields
from llamastack_server.log_ids import current_ids
from llamastack_server.log_json import JsonFormat
from llamastack_server.log_levels import LEVEL_VARIABLE, LogLevels, log_levels_from
from llamastack_server.log_repeats import Repeats

FORMAT_VARIABLE = "LLAMASTACK_LOG_FORMAT"
REPEATS_VARIABLE = "LLAMASTACK_LOG_REPEATS"
_FORMATS: dict[str, type[LogFormat]] = {"text": TextFormat, "json": JsonFormat}
_EVERYBODY = logging.getLogger()
_ROOT = logging.getLogger("llamastack")
_ACCESS = logging.getLogger(ACCESS)
_SERVER = logging.getLogger("llamastack.server")
_MOST_WAITING = 10_000  # lines
_LONGEST_PATH = 1024  # characters
_GATHERED_FOR_S = 0.05
_FLUSH_TIMEOUT_S = 2.0


class _BatchingHandler(logging.Handler):
    """Writes in a thread of its own, so that a slow reader does not block requests.

    The thread gathers lines for a moment, because each wake-up takes the interpreter from the event loop. If nobody
    reads the output, lines are dropped and their number is written. Repeated lines are dropped too, except in the
    access log and at `DEBUG`.
    """

    def __init__(self, stream: TextIO, formatter: LogFormat, repeats: Repeats) -> None:
        super().__init__()
        self.formatter: LogFormat = formatter
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
            self._emit(record)
        except Exception as error:
            # Python would write the arguments as they are, in lines that are none of the log, and with secrets.
            try:
                self._emit(_about_unwritable(record, error))
            except Exception:
                self.handleError(record)

    def _emit(self, record: logging.LogRecord) -> None:
        if record.levelno <= logging.DEBUG or record.name == _ACCESS.name or self._admits(record):
            self.add(self.format(record))

    def _admits(self, record: logging.LogRecord) -> bool:
        admitted = self._repeats.admits(record, self.formatter.message(record), current_ids(), time.monotonic())
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
            lines.append(self.formatter.dropped(dropped, __name__))
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


def _about_unwritable(record: logging.LogRecord, error: Exception) -> logging.LogRecord:
    """A record about a record that cannot be formatted."""
    place = (record.name, record.pathname, record.lineno)
    message = "a record of the logger '%s' cannot be written; it comes from %s, line %d"
    exception = (type(error), error, error.__traceback__)
    return logging.LogRecord(_SERVER.name, logging.ERROR, record.pathname, record.lineno, message, place, exception)


_own: _BatchingHandler | None = None
_levels = LogLevels()


def log_access(method: str, path: str, status: int, took_s: float) -> None:
    """Write a line for one request.

    If only our own handler would get the record, none is made: making and formatting a record takes longer than the
    rest of the server's work on a request.
    """
    if not _ACCESS.isEnabledFor(logging.INFO):
        return
    line = f"{method} {path} {status} {took_s * 1000:.1f} ms"
    if len(line) > _LONGEST_PATH or not line.isprintable():
        method = one_line(method)
        path = one_line(path if len(path) <= _LONGEST_PATH else f"{path[:_LONGEST_PATH]}...")
        line = f"{method} {path} {status} {took_s * 1000:.1f} ms"
    others = _ROOT.handlers or _ACCESS.handlers or _ACCESS.filters
    if _own is not None and _EVERYBODY.handlers == [_own] and not others:
        _own.add(_own.formatter.access(line, method, path, status, took_s))
    else:
        _ACCESS.info("%s", line, extra={FIELDS: access_fields(method, path, status, took_s)})


def set_up_logging(level: str | None = None, *, worker: str | None = None, packages: Iterable[str] = ()) -> None:
    """Log to stderr, for this package and all others in the same form.

    level: see `log_levels_from`; by default LLAMASTACK_LOG_LEVEL, else INFO.
    worker: name of this process, put into every line.
    packages: packages whose loggers get the default level too; all others have at least WARNING.
    Raises ValueError for a wrong level, and for wrong settings in the environment.
    """
    chosen = log_levels_from(level or os.environ.get(LEVEL_VARIABLE) or "INFO")
    log_format = _format()(worker)
    repeats = Repeats(_most_repeats())
    global _own, _levels
    if _own is not None:
        _own.stop()
        atexit.unregister(_own.stop)
    handler = _own = _BatchingHandler(sys.stderr, log_format, repeats)
    atexit.register(handler.stop)
    _EVERYBODY.handlers[:] = [handler]
    _levels.forget()
    _levels = chosen
    _levels.apply()
    log_packages(packages)
    logging.captureWarnings(True)
    threading.excepthook = _log_end_of_thread
    sys.unraisablehook = _log_ignored


def log_packages(packages: Iterable[str]) -> None:
    """Give the loggers of these packages, and those below them, the level of our own, unless another was chosen."""
    _levels.apply_to(packages)


def _format() -> type[LogFormat]:
    given = os.environ.get(FORMAT_VARIABLE) or "text"
    if given.lower() not in _FORMATS:
        raise ValueError(f"{FORMAT_VARIABLE}: '{given}' is not one of {', '.join(_FORMATS)}")
    return _FORMATS[given.lower()]


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
