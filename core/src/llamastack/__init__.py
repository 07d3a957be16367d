"""llamastack: a slim core to assemble a generative-AI stack out of separately installed providers.

Importing it is cheap; `Stack` and `LlamaStackClient` are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamastack.lazy_imports import lazy_getattr

__all__ = ["ConfigError", "LlamaStackClient", "Stack", "StackStartError"]

if TYPE_CHECKING:
    from llamastack.client import LlamaStackClient
    from llamastack.stack import ConfigError, Stack, StackStartError
else:
    __getattr__ = lazy_getattr(__name__, (".stack", ".client"), __all__)
