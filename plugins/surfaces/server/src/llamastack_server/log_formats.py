"""How a record of the log is written: what every format has in common, and the format `text`."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final

from llamastack.provider.context import current_context
from llamastack.provider.control_characters import indented, one_line
from llamastack.provider.redaction import without_known_secrets
from llamastack_server.log_ids import RequestIds, ids_of
from llamastack_server.log_repeats import Held

ACCESS: Final = "llamastack.access"
LONGEST_MESSAGE = 16_384  # characters
FIELDS = "llamastack_fields"
"""Attribute of a record with the parts of its message, `LogFields`, for formats that have fields."""
LogFields = Mapping[str, str | int | float | None]


class LogFormat(ABC, logging.Formatter):
    """Writes lines with the ids of the request and, if there are several workers, the worker's name.

    A message is always one line, so text from outside can neither look like a line of the log nor control the terminal.
    Secrets are redacted in every record. The text of the time is made once per second.
    """

    time_form = "%Y-%m-%d %H:%M:%S,"
    time_zone = staticmethod(time.localtime)
    after_time = ""

    def __init__(self, worker: str | None) -> None:
        super().__init__()
        self.worker = worker
        self._second = (0, "")

    @abstractmethod
    def access(self, line: str, method: str, path: str, status: int, took_s: float) -> str:
        """The same as `format` for a record of the access log. line: the message. All texts are printable."""

    @abstractmethod
    def held(self, held: Held, window_s: float) -> str:
        """A line for the repetitions that were not written."""

    @abstractmethod
    def dropped(self, number: int, logger: str) -> str:
        """A line for the lines that nobody read in time."""

    def message(self, record: logging.LogRecord) -> str:
        """The record's message in one line, without secrets."""
        # For the log of providers, too.
        return shown(record.getMessage().rstrip())

    def tracebacks(self, record: logging.LogRecord) -> tuple[str, str]:
        """The record's traceback and its `stack_info`, without secrets; "" if it has none."""
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        return _without_secrets(record.exc_text), _without_secrets(record.stack_info)

    def time(self, since_epoch_s: float) -> str:
        """The text of a time, with milliseconds."""
        second = int(since_epoch_s)
        if second != self._second[0]:
            self._second = (second, time.strftime(self.time_form, self.time_zone(second)))
        return f"{self._second[1]}{int((since_epoch_s - second) * 1000):03d}{self.after_time}"


class TextFormat(LogFormat):
    """Lines to read: `time level logger worker [request] message`, and tracebacks below them, indented."""

    def __init__(self, worker: str | None) -> None:
        super().__init__(worker)
        self.named = f" {worker}" if worker else ""

    def format(self, record: logging.LogRecord) -> str:
        line = self._line(record.created, record.levelname, record.name, _request(), self.message(record))
        for more in self.tracebacks(record):
            if more:
                line += f"\n{indented(more)}"
        return line

    def access(self, line: str, method: str, path: str, status: int, took_s: float) -> str:
        return f"{self.time(time.time())} INFO {ACCESS}{self.named}{_request()} {line}"

    def held(self, held: Held, window_s: float) -> str:
        return self._line(time.time(), held.level, held.logger, _shown_ids(held.request), summary_of(held, window_s))

    def dropped(self, number: int, logger: str) -> str:
        return self._line(time.time(), "WARNING", logger, "", dropped_message(number))

    def _line(self, since_epoch_s: float, level: str, logger: str, request: str, message: str) -> str:
        return f"{self.time(since_epoch_s)} {level} {one_line(logger)}{self.named}{request} {message}"


def _request() -> str:
    context = current_context()
    if context.traceparent is not None:
        return _shown_ids(ids_of(context))
    return f" [{context.request_id}]" if context.request_id else ""


def _shown_ids(ids: RequestIds) -> str:
    """The ids in brackets after a space: the request's, and the trace's unless it is the same."""
    trace = f"trace={ids.trace_id}" if ids.trace_id and ids.trace_id != ids.request_id else ""
    both = " ".join(text for text in (ids.request_id, trace) if text)
    return f" [{both}]" if both else ""


def shown(text: str) -> str:
    """`text` in one line, without secrets, and cut if it is too long."""
    # Cut last, because a cut secret would not be found.
    return one_line(_cut(without_known_secrets(text)))


def access_fields(method: str, path: str, status: int, took_s: float) -> LogFields:
    """The parts of a line of the access log."""
    return {"http_method": method, "path": path, "http_status": status, "duration_ms": milliseconds(took_s)}


def milliseconds(seconds: float) -> float:
    """As precise as in a message."""
    return round(seconds * 1000, 1)


def summary_of(held: Held, window_s: float) -> str:
    """The message for repetitions that were not written."""
    return f"repeated {held.number} times within {window_s:g} s, the last time as: {held.text}"


def dropped_message(number: int) -> str:
    """The message for lines that nobody read in time."""
    return f"{number} lines of the log were dropped: they came faster than they were read"


def _without_secrets(text: str | None) -> str:
    return _cut(without_known_secrets(text)) if text else ""


def _cut(text: str) -> str:
    if len(text) <= LONGEST_MESSAGE:
        return text
    half = LONGEST_MESSAGE // 2
    return f"{text[:half]} ... {len(text) - 2 * half} characters left out ... {text[-half:]}"
