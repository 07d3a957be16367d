"""Entry points that cannot be loaded, found without importing them."""

from __future__ import annotations

import importlib.util
import re

from llamastack.provider.import_path import ENTRY_POINT_PATTERN
from llamastack.stack.discovery import Installed

_ENTRY_POINT = re.compile(ENTRY_POINT_PATTERN)


def fault_of(installed: Installed) -> str | None:
    """Why it cannot be loaded; None if no fault is found."""
    if not _ENTRY_POINT.match(installed.value):
        return f"entry point {installed.value!r} is not of the form 'package.module:attribute'"
    top = installed.value.partition(":")[0].partition(".")[0]
    return f"package '{top}' is not installed" if importlib.util.find_spec(top) is None else None
