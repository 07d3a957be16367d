"""A copier template of a provider package, and the command that renders it."""

from llamastack_provider_template import commands

__all__ = ["commands"]
