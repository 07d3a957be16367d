"""Floor 3: from a run config to a running stack."""

from llamastack.stack.config import ConfigError
from llamastack.stack.stack import Stack, StackStartError

__all__ = ["ConfigError", "Stack", "StackStartError"]
