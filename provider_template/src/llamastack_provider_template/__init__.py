"""A copier template of a provider package, and the command that renders it."""

from __future__ import annotations

from collections.abc import Sequence

from llamastack.provider import hookimpl
from llamastack.provider.commands import CliCommand

__all__ = ["llamastack_cli_commands"]


@hookimpl
def llamastack_cli_commands() -> Sequence[CliCommand]:
    return [CliCommand("provider", "Write a provider.", "llamastack_provider_template.new:provider")]
