"""Names of a package that are imported on first use, so that importing the package stays cheap."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Container, Sequence


def lazy_getattr(package: str, modules: Sequence[str], names: Container[str] | None = None) -> Callable[[str], object]:
    """The `__getattr__` of a package (PEP 562) that looks for a name in its modules, in this order, cheapest first.

    package: its `__name__`.
    modules: relative (`.errors`) or absolute names.
    names: those that can be had; None for every one that does not begin with an underscore.
    """

    def find(name: str) -> object:
        if name in names if names is not None else not name.startswith("_"):
            for module in modules:
                found: object = getattr(importlib.import_module(module, package), name, None)
                if found is not None:
                    setattr(sys.modules[package], name, found)
                    return found
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
