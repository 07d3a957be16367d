"""The command `llamastack`: subcommands imported when they are used, and one place where errors become text."""

from __future__ import annotations

import functools
import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from llamastack.provider.commands import CliCommand, CliError
from llamastack_cli.lazy_group import LazyGroup, load_command, with_commands
from llamastack_cli.output import (
    TerminalOutput,
    error_lines,
    say,
    show_errors,
    show_warnings,
    to_cli_error,
    without_secrets,
)

if TYPE_CHECKING:
    from llamastack.stack.plugins import Plugins

_LOGGER = logging.getLogger("llamastack.cli")
_INTERRUPTED = 130  # 128 + SIGINT, as in shells

_COMMANDS = {
    command.name: command
    for command in (
        CliCommand("chat", "Talk to a model of a running server.", "llamastack_cli.chat:chat"),
        CliCommand(
            "inspect", "Show a running server's providers, health and routes.", "llamastack_cli.inspect:inspect"
        ),
        CliCommand("providers", "Show the installed providers.", "llamastack_cli.providers:providers"),
        CliCommand("distributions", "Show the installed run configs.", "llamastack_cli.distributions:distributions"),
        CliCommand("plugins", "Show the installed plugins.", "llamastack_cli.distributions:plugins"),
        CliCommand("config", "Check run configs.", "llamastack_cli.config:config"),
        CliCommand(
            "doctor",
            "Check a run config and its providers, and say what to do.",
            "llamastack_cli.doctor.command:doctor",
        ),
    )
}
# A copy from the API table, because importing the table is too slow for `--help`. A test compares the two.
_API_COMMANDS = {
    "agents": "Create agents, hold sessions with them, turn by turn.",
    "inference": "Generate text and embed content.",
    "memory": "Store and search documents in memory banks.",
    "memory-banks": "List, register and unregister the memory banks of a running server.",
    "models": "List, register and unregister the models of a running server.",
    "safety": "Check messages against shields.",
    "shields": "List, register and unregister the shields of a running server.",
    "telemetry": "Store events and return them as traces.",
}
_MORE_COMMANDS = {
    "memory-banks": (
        CliCommand("insert", "Store files in a memory bank.", "llamastack_cli.bank_insert:insert"),
        CliCommand("query", "Find chunks in a memory bank.", "llamastack_cli.bank_query:query"),
    ),
}
"""Commands beside those that are made from the methods of an API."""
_KNOWN_PACKAGES = {"run": "llamastack-server", "provider": "llamastack-provider-template"}
"""Commands that people look for, and the package to install where one is not there."""
_PLUGIN_LOGGER = "llamastack.plugins"
_SHOWS_PLUGINS = ("plugins", "list")
"""This command shows why plugins are left out, so that a warning would say it again."""


class TopGroup(LazyGroup):
    """The built-in commands and those of plugins."""

    def run(self, arguments: Sequence[str] | None = None) -> int:
        """Run one command line and return the exit status."""
        given = sys.argv[1:] if arguments is None else arguments
        show_warnings([_PLUGIN_LOGGER] if tuple(given[:2]) == _SHOWS_PLUGINS else ())
        try:
            status = super().main(arguments, prog_name="llamastack", standalone_mode=False)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            return error.exit_code
        except (click.ClickException, CliError) as error:
            show_errors(error_lines(error))
            return error.exit_code
        except click.Abort:
            return _INTERRUPTED
        except Exception as error:
            # Outside any command, for example `--help` when plugins conflict with each other.
            failed = to_cli_error(error)
            show_errors(error_lines(failed))
            return failed.exit_code
        return status if isinstance(status, int) else 0

    def main(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> NoReturn:
        sys.exit(self.run(args))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except (click.ClickException, CliError, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            if isinstance(error, BrokenPipeError):
                # The reader closed the pipe. Flushing the buffer at the interpreter's exit must not fail again.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                ctx.exit(0)
            if ctx.params.get("debug"):
                say(without_secrets("".join(traceback.format_exception(error))), err=True, nl=False)
            raise to_cli_error(error) from error

    # ---- which commands there are --------------------------------------------------------------------------------

    def lazy_commands(self) -> Mapping[str, CliCommand]:
        return {**_COMMANDS, **_commands_of_plugins()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*sorted(self.lazy_commands()), *sorted(_api_commands())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        lazy = self.lazy_commands().get(cmd_name)
        if lazy is not None:
            return with_commands(load_command(lazy), _commands_of_plugins(cmd_name).values())
        if cmd_name in _api_commands():
            from llamastack_cli.api_commands import api_command, called_apis
            from llamastack_cli.resource_commands import is_resource_api

            definition = called_apis()[cmd_name]
            # A package may have better commands for its API than those that are made from the methods.
            added = [*_MORE_COMMANDS.get(cmd_name, ()), *_commands_of_plugins(cmd_name).values()]
            replace = not is_resource_api(definition)
            return with_commands(api_command(definition), added, replace=replace)
        package = _KNOWN_PACKAGES.get(cmd_name)
        if package is not None:
            raise click.UsageError(
                f"No such command '{cmd_name}': it comes with {package} (pip install {package})", ctx
            )
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted((name, command.help) for name, command in self.lazy_commands().items()))
        with formatter.section("APIs of a running server"):
            formatter.write_dl(sorted(_api_commands().items()))


def _has_plugins() -> bool:
    """Whether any plugin is installed. Without one, nothing that costs time is imported."""
    from llamastack.stack.discovery import default_discovery

    return not all(plugin.disabled for plugin in default_discovery().plugins())


def _commands_of_plugins(group: str | None = None) -> dict[str, CliCommand]:
    """The commands that plugins add to a group, by default to `llamastack` itself."""
    if not _has_plugins():
        return {}
    from llamastack_cli.server_connection import installed_plugins

    return {command.name: command for command in _hooked_commands(installed_plugins()) if command.group == group}


def _names_taken(group: str | None) -> list[str]:
    if group is None:
        return [*_COMMANDS, *_API_COMMANDS]
    return [command.name for command in _MORE_COMMANDS.get(group, ())]


@functools.cache  # called several times per command line, and must warn once
def _hooked_commands(hooks: Plugins) -> list[CliCommand]:
    found: dict[tuple[str | None, str], CliCommand] = {}
    for plugin, command in hooks.collect("llamastack_cli_commands"):
        key = (command.group, command.name)
        if key in found or command.name in _names_taken(command.group):
            _LOGGER.warning("command '%s' already exists; the command of plugin %s is left out", command.name, plugin)
        else:
            found[key] = command
    return list(found.values())


def _api_commands() -> Mapping[str, str]:
    """The commands that follow from APIs, with their help lines; plugins may add APIs."""
    if not _has_plugins():
        return _API_COMMANDS
    from llamastack_cli.server_connection import installed_plugins

    if not installed_plugins().implementations("llamastack_apis"):
        return _API_COMMANDS
    from llamastack_cli.api_commands import api_help, called_apis

    return {name: api_help(definition) for name, definition in called_apis().items()}


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        import importlib_metadata

        click.echo(f"llamastack {importlib_metadata.version('llamastack')}")
        ctx.exit()


@click.group(
    cls=TopGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--debug", is_flag=True, envvar="LLAMASTACK_DEBUG", help="Show tracebacks of errors.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Assemble a generative-AI stack out of installed providers, run it, and talk to it."""
    ctx.obj = TerminalOutput(debug)
