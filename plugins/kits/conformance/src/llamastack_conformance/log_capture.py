"""What code logs and shows, for searches for secrets."""

from __future__ import annotations

import logging
import traceback


def lines_of(error: BaseException) -> list[str]:
    """An error with its traceback and its causes, as Python prints it."""
    return traceback.format_exception(error)


class everything_logged(logging.Handler):  # noqa: N801 - used like a function
    """The log records inside the block, of all loggers, from `level` on, as text."""

    def __init__(self, level: int = logging.DEBUG) -> None:
        super().__init__(level)
        self._lines: list[str] = []

    def __enter__(self) -> list[str]:
        root = logging.getLogger()
        self._before, self._disabled = root.level, root.manager.disable
        root.addHandler(self)
        root.setLevel(logging.DEBUG)
        logging.disable(logging.NOTSET)  # a program may have disabled all logging
        return self._lines

    def __exit__(self, *_: object) -> None:
        root = logging.getLogger()
        root.removeHandler(self)
        root.setLevel(self._before)
        logging.disable(self._disabled)

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(f"{record.name}: {record.getMessage()} {record.exc_text or ''}")
        if record.exc_info and record.exc_info[1]:
            self._lines.append("".join(lines_of(record.exc_info[1])))
