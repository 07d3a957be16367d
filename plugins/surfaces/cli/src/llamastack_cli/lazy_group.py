"""A command group that knows commands by name and help line, and imports a command when it runs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import click

from llamastack.provider.commands import CliCommand, CliError
from llamastack.provider.import_path import load_dotted

_LOGGER = logging.getLogger("llamastack.cli")


class LazyGroup(click.Group):
    """lazy: commands that are imported when they run."""

    def __init__(self, *arguments: Any, lazy: Mapping[str, CliCommand] | None = None, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._lazy = dict(lazy or {})

    def lazy_commands(self) -> Mapping[str, CliCommand]:
        """The commands that are imported when they run, by name."""
        return self._lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *self.lazy_commands()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        there = super().get_command(ctx, cmd_name)
        if there is not None:
            return there
        lazy = self.lazy_commands().get(cmd_name)
        return None if lazy is None else load_command(lazy)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, command.get_short_help_str(100)) for name, command in sorted(self.commands.items())]
        rows += [(name, command.help) for name, command in self.lazy_commands().items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def load_command(command: CliCommand) -> click.Command:
    """Import a command. Raises CliError that names its target and the cause."""
    try:
        loaded = load_dotted(command.target)
    except Exception as error:
        raise CliError(
            f"command '{command.name}' ({command.target}) cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(loaded, click.Command):
        raise CliError(f"command '{command.name}': {command.target} is not a click.Command")
    if not command.connects:
        return loaded
    from llamastack_cli.server_connection import connected

    return connected(loaded)


def with_commands(group: click.Command, added: Iterable[CliCommand], *, replace: bool = False) -> click.Command:
    """The group with more commands. An existing command is kept, with a warning, or replaced."""
    lazy = {command.name: command for command in added}
    if not lazy:
        return group
    if not isinstance(group, click.Group):
        raise CliError(f"command '{group.name}' is not a group; '{min(lazy)}' cannot be added to it")
    kept = {name: command for name, command in group.commands.items() if not replace or name not in lazy}
    for name in [name for name in lazy if name in kept]:
        _LOGGER.warning("command '%s %s' already exists; the command of a plugin is left out", group.name, name)
        del lazy[name]
    return LazyGroup(group.name, kept, callback=group.callback, params=group.params, help=group.help, lazy=lazy)
