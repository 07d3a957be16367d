"""The levels of loggers: one for all of ours and of plugins, and one for each logger that is named."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

LEVEL_VARIABLE = "LLAMASTACK_LOG_LEVEL"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_OWN = "llamastack"
_LOGGER_NAME = re.compile(r"[^\s.,=]+(?:\.[^\s.,=]+)*")
# llamastack logs itself what uvicorn logs at INFO (started, waiting, finished).
_UVICORN = ("uvicorn", "uvicorn.error")


@dataclass(frozen=True, slots=True)
class LogLevels:
    """default: of our own loggers and those of plugins. of_loggers: for a logger and those below it."""

    default: str = "INFO"
    of_loggers: Mapping[str, str] = field(default_factory=dict)

    def apply(self) -> None:
        """Set the levels of all loggers but those of plugins."""
        logging.getLogger().setLevel(max(logging.WARNING, logging.getLevelName(self.default)))
        logging.getLogger(_OWN).setLevel(self.default)
        self._set(_UVICORN, "DEBUG" if self.default == "DEBUG" else "WARNING")
        for name, level in self.of_loggers.items():
            logging.getLogger(name).setLevel(level)

    def apply_to(self, packages: Iterable[str]) -> None:
        """Give the loggers of these packages, and those below them, the default level."""
        self._set((name for name in packages if name.partition(".")[0] != _OWN), self.default)

    def forget(self) -> None:
        """Take the levels of the named loggers back, before other levels are applied."""
        for name in self.of_loggers:
            logging.getLogger(name).setLevel(logging.NOTSET)

    def _set(self, names: Iterable[str], level: str) -> None:
        for name in names:
            # A level for `acme` is meant for `acme.plugin`, too, which has no level of its own then.
            if name not in self.of_loggers:
                logging.getLogger(name).setLevel(logging.NOTSET if self._is_below_named(name) else level)

    def _is_below_named(self, name: str) -> bool:
        return any(name.startswith(f"{named}.") for named in self.of_loggers)


def log_levels_from(text: str) -> LogLevels:
    """The levels in a text such as `INFO,llamastack.access=WARNING,httpx=DEBUG`, in upper or lower case.

    Raises ValueError that names the wrong part.
    """
    first, *others = text.split(",")
    default = "INFO"
    if "=" in first:
        others.insert(0, first)
    else:
        default = _level(first, "")
    of_loggers: dict[str, str] = {}
    for part in others:
        name, equals, level = (piece.strip() for piece in part.partition("="))
        wrong = f"{LEVEL_VARIABLE}: '{part.strip()}'"
        if not equals:
            raise ValueError(f"{wrong} is not of the form logger=level; only the first part may be a level alone")
        if not _LOGGER_NAME.fullmatch(name):
            raise ValueError(f"{wrong} does not begin with the name of a logger, such as llamastack.access")
        if name in of_loggers:
            raise ValueError(f"{wrong} gives the logger '{name}' a second level")
        of_loggers[name] = _level(level, f" in '{part.strip()}'")
    return LogLevels(default, of_loggers)


def _level(text: str, where: str) -> str:
    level = text.strip().upper()
    if level not in LEVELS:
        raise ValueError(f"{LEVEL_VARIABLE}: '{level}'{where} is not one of {', '.join(LEVELS)}")
    return level
