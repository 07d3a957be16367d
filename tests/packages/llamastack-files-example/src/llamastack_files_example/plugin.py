"""The hooks of this package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llamastack.provider import hookimpl
from llamastack.provider.commands import CliCommand

if TYPE_CHECKING:
    from llamastack.api.definition import ApiDefinition
    from llamastack.provider.routes import RouteGroup
    from llamastack.stack import Stack


@hookimpl
def llamastack_apis() -> Sequence[ApiDefinition]:
    from llamastack_files_example.api import APIS
    from llamastack_files_example.uploads_api import UPLOADS

    return [*APIS, UPLOADS]


@hookimpl
def llamastack_routes(stack: Stack) -> Sequence[RouteGroup]:
    from llamastack_files_example.shared_files import shared_files

    # A stack without a provider of files has nothing to show.
    return [shared_files(stack.files)] if "files" in stack.apis else []


@hookimpl
def llamastack_cli_commands() -> Sequence[CliCommand]:
    target = "llamastack_files_example.commands:share"
    return [CliCommand("share", "Upload a file and print its address.", target, connects=True)]
