"""Dotted strings, `package.module:attribute`, so that naming a thing does not import it."""

from __future__ import annotations

import importlib
import re
from typing import Any

DOTTED_PATTERN = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"
ENTRY_POINT_PATTERN = r"^[A-Za-z_][\w.]*(:[A-Za-z_][\w.]*)?$"
"""The same, or a whole module, as the value of an entry point may be."""
_LOADABLE = re.compile(ENTRY_POINT_PATTERN)


def load_dotted(path: str) -> Any:
    """Import what `path` names: an attribute of a module, or the module where it has no `:attribute`.

    Raises ValueError for a path of another form, ImportError or AttributeError when it leads nowhere. ImportError also
    when the module raises what is not an `Exception`: a script ends with sys.exit(). Ctrl-C is left as it is.
    """
    if not _LOADABLE.match(path):
        raise ValueError(f"{path!r} is not of the form 'package.module:attribute'")
    module_name, _, attributes = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for attribute in attributes.split(".") if attributes else ():
            found = getattr(found, attribute)
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as raised:
        text = " ".join(str(raised).split())
        raised_what = f"{type(raised).__name__}: {text}" if text else type(raised).__name__
        raise ImportError(f"importing {module_name} raises {raised_what}") from raised
    return found
