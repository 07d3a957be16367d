"""Logging of the server: one line per record, with the request's id."""

from __future__ import annotations

import atexit
import logging
import os
import queue
import sys
from contextlib import suppress
from logging.handlers import QueueHandler, QueueListener

from llamastack.server.context import request_id

LEVEL_VARIABLE = "LLAMASTACK_LOG_LEVEL"
_MOST_WAITING = 10_000
_LONGEST_GOODBYE_S = 2.0
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class _RequestIdFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        current = request_id.get()
        record.request = f" [{current}]" if current else ""
        return True


class _DroppingHandler(QueueHandler):
    """Hands records to the thread that writes them; drops them where nobody reads what is written."""

    def enqueue(self, record: logging.LogRecord) -> None:
        with suppress(queue.Full):
            self.queue.put_nowait(record)


class _Listener(QueueListener):
    def stop(self) -> None:
        """Write what is waiting, but not for longer than a reader can be expected to take."""
        with suppress(queue.Full):
            self.enqueue_sentinel()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(_LONGEST_GOODBYE_S)


def set_up_logging(level: str | None = None) -> None:
    """Log to stderr, written by a thread of its own: a slow reader must not hold up requests.

    level: one of `LEVELS`; from LLAMASTACK_LOG_LEVEL when not given, else INFO. Raises ValueError for another.
    """
    chosen = (level or os.environ.get(LEVEL_VARIABLE) or "INFO").upper()
    if chosen not in LEVELS:
        raise ValueError(f"{LEVEL_VARIABLE}: '{chosen}' is not one of {', '.join(LEVELS)}")
    written = logging.StreamHandler(sys.stderr)
    written.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s%(request)s %(message)s"))
    lines: queue.Queue[logging.LogRecord] = queue.Queue(_MOST_WAITING)
    handler = _DroppingHandler(lines)
    handler.addFilter(_RequestIdFilter())
    listener = _Listener(lines, written)
    listener.start()
    atexit.register(listener.stop)
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
