"""Logging of the server: one line per record, with the request's id."""

from __future__ import annotations

import logging
import os
import sys

from llamastack.server.context import request_id

LEVEL_VARIABLE = "LLAMASTACK_LOG_LEVEL"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class _RequestIdFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        current = request_id.get()
        record.request = f" [{current}]" if current else ""
        return True


def set_up_logging(level: str | None = None) -> None:
    """Log to stderr.

    level: one of `LEVELS`; from LLAMASTACK_LOG_LEVEL when not given, else INFO. Raises ValueError for another.
    """
    chosen = (level or os.environ.get(LEVEL_VARIABLE) or "INFO").upper()
    if chosen not in LEVELS:
        raise ValueError(f"{LEVEL_VARIABLE}: '{chosen}' is not one of {', '.join(LEVELS)}")
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_RequestIdFilter())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s%(request)s %(message)s"))
    root = logging.getLogger("llamastack")
    root.handlers[:] = [handler]
    root.propagate = False
    root.setLevel(chosen)
    for name in ("uvicorn.error", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        # What uvicorn says at INFO (started, waiting, finished) is said by us.
        logger.setLevel("DEBUG" if chosen == "DEBUG" else "WARNING")
