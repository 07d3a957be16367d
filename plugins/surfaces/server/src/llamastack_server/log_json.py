"""The format `json` of the log: one JSON object per line.

Lines are ASCII and escape all other characters. So neither the locale of the process nor a reader that knows more line
ends than `\\n` can break a line. Times have the form of RFC 3339, in UTC.
"""

from __future__ import annotations

import logging
import math
import time
from json import JSONEncoder
from json.encoder import encode_basestring_ascii as quoted

from llamastack.provider.context import current_context
from llamastack.provider.control_characters import indented, one_line
from llamastack_server.log_formats import (
    ACCESS,
    FIELDS,
    LogFields,
    LogFormat,
    dropped_message,
    shown,
    summary_of,
)
from llamastack_server.log_ids import RequestIds, current_ids, ids_of
from llamastack_server.log_repeats import Held

_ENCODED = JSONEncoder(separators=(",", ":")).encode
_NO_FIELDS: LogFields = {}


class JsonFormat(LogFormat):
    """Objects with the fields that docs/operations.md lists. A field without a value is left out."""

    time_form = "%Y-%m-%dT%H:%M:%S."
    time_zone = staticmethod(time.gmtime)
    after_time = "Z"

    def __init__(self, worker: str | None) -> None:
        super().__init__(one_line(worker) if worker else None)
        named = f',"worker":{quoted(self.worker)}' if self.worker else ""
        self._access_head = f'","level":"INFO","logger":"{ACCESS}"{named},"message":'

    def format(self, record: logging.LogRecord) -> str:
        more = {name: _value(value) for name, value in _fields_of(record).items()}
        for name, text in zip(("exception", "stack_info"), self.tracebacks(record), strict=True):
            if text:
                more[name] = indented(text, "")
        message = self.message(record)
        return self._line(record.created, record.levelname, record.name, current_ids(), message, more)

    def access(self, line: str, method: str, path: str, status: int, took_s: float) -> str:
        parts = f'"http_method":{quoted(method)},"path":{quoted(path)},"http_status":{status}'
        head = f'{{"time":"{self.time(time.time())}{self._access_head}{quoted(line)}{_request()}'
        return f'{head},{parts},"duration_ms":{took_s * 1000:.1f}}}'

    def held(self, held: Held, window_s: float) -> str:
        more: LogFields = {"repeated": held.number, "within_s": window_s}
        return self._line(time.time(), held.level, held.logger, held.request, summary_of(held, window_s), more)

    def dropped(self, number: int, logger: str) -> str:
        return self._line(time.time(), "WARNING", logger, RequestIds(), dropped_message(number), {"dropped": number})

    def _line(
        self, since_epoch_s: float, level: str, logger: str, ids: RequestIds, message: str, more: LogFields
    ) -> str:
        fields: dict[str, str | int | float | None] = {
            "time": self.time(since_epoch_s),
            "level": one_line(level),
            "logger": one_line(logger),
            "worker": self.worker,
            "message": message,
            "request_id": one_line(ids.request_id) if ids.request_id else None,
            "trace_id": ids.trace_id,
            "span_id": ids.span_id,
            **more,
        }
        return _ENCODED({name: value for name, value in fields.items() if value is not None})


def _request() -> str:
    context = current_context()
    text = f',"request_id":{quoted(one_line(context.request_id))}' if context.request_id else ""
    if context.traceparent is not None:
        _, trace_id, span_id = ids_of(context)
        text += f',"trace_id":"{trace_id}","span_id":"{span_id}"' if trace_id else ""
    return text


def _fields_of(record: logging.LogRecord) -> LogFields:
    fields: LogFields = getattr(record, FIELDS, _NO_FIELDS)
    return fields


def _value(value: str | int | float | None) -> str | int | float | None:
    """What stands in a field: texts as in a message; a number that JSON does not have is left out."""
    if isinstance(value, str):
        return shown(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
