"""The plugin of llamastack: it adds `llamastack providers verify`."""

from __future__ import annotations

from collections.abc import Sequence

from llamastack.provider import hookimpl
from llamastack.provider.commands import CliCommand


@hookimpl
def llamastack_cli_commands() -> Sequence[CliCommand]:
    return [
        CliCommand(
            "verify",
            "Check an installed provider and its package.",
            "llamastack_conformance.verify.command:verify",
            group="providers",
        )
    ]
