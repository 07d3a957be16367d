"""The hooks of this package: the API, and its commands for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llamastack.provider import hookimpl
from llamastack.provider.commands import CliCommand

if TYPE_CHECKING:
    from llamastack.api.definition import ApiDefinition

_COMMANDS = (
    ("list", "list_jobs", "List jobs, the newest first."),
    ("show", "show_job", "Show a job, and what failed in it."),
    ("cancel", "cancel_jobs", "Cancel jobs."),
    ("retry", "retry_jobs", "Queue failed jobs again."),
)
_MODULE = "llamastack_provider_jobs.commands"


@hookimpl
def llamastack_apis() -> Sequence[ApiDefinition]:
    from llamastack_provider_jobs.api import APIS

    return APIS


@hookimpl
def llamastack_cli_commands() -> Sequence[CliCommand]:
    return [
        CliCommand(name, line, f"{_MODULE}:{function}", group="jobs", connects=True)
        for name, function, line in _COMMANDS
    ]
