"""llamastack: a slim core to assemble a generative-AI stack out of separately installed providers.

Importing it is cheap; `Stack` and `LlamaStackClient` are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamastack.client import LlamaStackClient
    from llamastack.stack import ConfigError, Stack, StackStartError

_LAZY = {
    "ConfigError": "llamastack.stack",
    "LlamaStackClient": "llamastack.client",
    "Stack": "llamastack.stack",
    "StackStartError": "llamastack.stack",
}

__all__ = ["ConfigError", "LlamaStackClient", "Stack", "StackStartError"]


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'llamastack' has no attribute {name!r}")
    found = getattr(importlib.import_module(module), name)
    globals()[name] = found
    return found
