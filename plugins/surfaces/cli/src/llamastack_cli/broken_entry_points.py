"""Entry points that cannot be loaded, as far as that is known without an import."""

from __future__ import annotations

import importlib.util
import re

from llamastack.provider.import_path import ENTRY_POINT_PATTERN
from llamastack.stack.discovery import Installed

_ENTRY_POINT = re.compile(ENTRY_POINT_PATTERN)


def fault_of(installed: Installed) -> str | None:
    """Why it cannot be loaded; None where nothing is known to be wrong."""
    if not _ENTRY_POINT.match(installed.value):
        return f"entry point {installed.value!r} is not of the form 'package.module:attribute'"
    top = installed.value.partition(":")[0].partition(".")[0]
    return f"package '{top}' is not there" if importlib.util.find_spec(top) is None else None
