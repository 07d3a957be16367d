"""The packages whose log lines are shown like the server's own: those of plugins and providers."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from llamastack.stack.discovery import Discovery


def packages_of_plugins(discovery: Discovery) -> set[str]:
    """The packages of the entry points that are not disabled."""
    return packages_of(installed.value for installed in discovery.installed if not installed.disabled)


def packages_of(values: Iterable[str]) -> set[str]:
    """The packages of entry points or dotted paths."""
    return {_package_of(value) for value in values}


def _package_of(value: str) -> str:
    # If several distributions share a namespace, the package inside it.
    module = value.partition(":")[0].split(".")
    package = module[0]
    for part in module[1:]:
        try:
            found = importlib.util.find_spec(package)
        except (ImportError, ValueError):
            break
        if found is None or found.origin is not None:
            break
        package += f".{part}"
    return package
