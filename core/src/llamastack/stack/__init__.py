"""From a run config to a running stack.

Names are imported on first use, so that listing what is installed does not import what a running stack needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamastack.lazy_imports import lazy_getattr

__all__ = ["ConfigError", "PluginError", "Stack", "StackStartError"]

if TYPE_CHECKING:
    from llamastack.stack.hook_calls import PluginError
    from llamastack.stack.stack import Stack, StackStartError
    from llamastack.stack.yaml_source import ConfigError
else:
    __getattr__ = lazy_getattr(__name__, (".hook_calls", ".yaml_source", ".stack"), __all__)
