"""Dotted strings, `package.module:attribute`, so that naming a thing does not import it."""

from __future__ import annotations

import importlib
import re
from typing import Any

DOTTED_PATTERN = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"
_DOTTED = re.compile(DOTTED_PATTERN)


def load_dotted(path: str) -> Any:
    """Import what `path` names.

    Raises ValueError for a path of another form, ImportError or AttributeError when it leads nowhere.
    """
    if not _DOTTED.match(path):
        raise ValueError(f"{path!r} is not of the form 'package.module:attribute'")
    module_name, _, attributes = path.partition(":")
    found: Any = importlib.import_module(module_name)
    for attribute in attributes.split("."):
        found = getattr(found, attribute)
    return found
