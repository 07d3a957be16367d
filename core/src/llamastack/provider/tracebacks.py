"""Tracebacks in the log, after secrets were struck out of them."""

from __future__ import annotations

import logging


def log_traceback(logger: logging.Logger, level: int, message: str, trace: str) -> None:
    """Log `message` with a traceback that is text already.

    It takes the place of the record's own, which formatters put below the message: in the message, its lines could not
    be told from lines that came from outside.
    """
    if logger.isEnabledFor(level):
        file, line, function, _ = logger.findCaller(stacklevel=2)
        record = logger.makeRecord(logger.name, level, file, line, message, (), None, function)
        record.exc_text = trace.rstrip()
        logger.handle(record)
