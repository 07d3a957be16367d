"""From a run config to a running stack.

Names are imported on first use, so that listing what is installed does not import what a running stack needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamastack.stack.config import ConfigError
    from llamastack.stack.stack import Stack, StackStartError

_LAZY = {
    "ConfigError": "llamastack.stack.config",
    "Stack": "llamastack.stack.stack",
    "StackStartError": "llamastack.stack.stack",
}

__all__ = ["ConfigError", "Stack", "StackStartError"]


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'llamastack.stack' has no attribute {name!r}")
    found = getattr(importlib.import_module(module), name)
    globals()[name] = found
    return found
