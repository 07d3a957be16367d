"""The command `llamastack`: subcommands imported when they are used, and one place where errors become text."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from llamastack_cli.output import error_lines, say, show_errors, show_warnings, told, without_secrets

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_COMMANDS = {
    "run": ("llamastack_server.commands.run:run", "Start a stack and serve it over HTTP."),
    "chat": ("llamastack_cli.chat:chat", "Talk to a model of a running server."),
    "inspect": ("llamastack_cli.inspect:inspect", "Show a running server's providers, health and routes."),
    "providers": ("llamastack_cli.providers:providers", "Show the installed providers."),
    "distributions": ("llamastack_cli.distributions:distributions", "Show the installed run configs."),
    "plugins": ("llamastack_cli.distributions:plugins", "Show the installed plugins."),
    "config": ("llamastack_cli.config:config", "Check run configs."),
}
# The API table, which these three follow from, costs more to import than `--help` may take; a test compares.
_OBJECT_COMMANDS = {
    "models": "List, register and unregister models.",
    "shields": "List, register and unregister shields.",
    "memory-banks": "List, register and unregister memory banks.",
}


class LazyGroup(click.Group):
    """Knows its commands by name and help line; imports one when it is run."""

    def run(self, arguments: Sequence[str] | None = None) -> int:
        """Run one command line and give back the exit status."""
        show_warnings()
        try:
            status = super().main(arguments, prog_name="llamastack", standalone_mode=False)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            return error.exit_code
        except click.ClickException as error:
            show_errors(error_lines(error))
            return error.exit_code
        except click.Abort:
            return _INTERRUPTED
        except Exception as error:
            # Outside any command: `--help` itself, where it asks plugins that do not go together.
            failed = told(error)
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
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            if isinstance(error, BrokenPipeError):
                # Who reads has read enough. What is still buffered must not fail once more at the interpreter's exit.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                ctx.exit(0)
            if ctx.params.get("debug"):
                say(without_secrets("".join(traceback.format_exception(error))), err=True, nl=False)
            raise told(error) from error

    # ---- which commands there are --------------------------------------------------------------------------------

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_COMMANDS, *_OBJECT_COMMANDS, *(command.name or "" for command in _commands_of_plugins())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        built_in = _COMMANDS.get(cmd_name)
        if built_in is not None:
            module, _, name = built_in[0].partition(":")
            command: click.Command = getattr(importlib.import_module(module), name)
            return command
        if cmd_name in _OBJECT_COMMANDS:
            from llamastack_cli.resource_commands import object_apis, object_command

            return object_command(object_apis()[cmd_name])
        return next((command for command in _commands_of_plugins() if command.name == cmd_name), None)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, text) for name, (_, text) in _COMMANDS.items()] + list(_OBJECT_COMMANDS.items())
        with formatter.section("Commands"):
            formatter.write_dl(rows)
        added = [(command.name or "", command.get_short_help_str(100)) for command in _commands_of_plugins()]
        if added:
            with formatter.section("Commands of plugins"):
                formatter.write_dl(added)


def _commands_of_plugins() -> list[click.Command]:
    """The commands that plugins add, and those of the APIs that they add. Imports nothing when there are no plugins."""
    from llamastack.stack.discovery import PLUGIN_GROUP, default_discovery

    if all(plugin.disabled for plugin in default_discovery().group(PLUGIN_GROUP)):
        return []
    from llamastack_cli.server_connection import installed_plugins

    taken = {*_COMMANDS, *_OBJECT_COMMANDS}
    found: list[click.Command] = []
    added: list[click.Command] = []
    if installed_plugins().call.llamastack_apis.get_hookimpls():
        from llamastack_cli.resource_commands import object_apis, object_command

        added = [object_command(api) for name, api in object_apis().items() if name not in _OBJECT_COMMANDS]
    hooked = (command for _, command in installed_plugins().collect("llamastack_cli_commands"))
    for command in (*added, *hooked):
        if command.name and command.name not in taken:
            taken.add(command.name)
            found.append(command)
    return found


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        import importlib_metadata

        click.echo(f"llamastack {importlib_metadata.version('llamastack')}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--debug", is_flag=True, envvar="LLAMASTACK_DEBUG", help="Show tracebacks of errors.")
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show it.")
def cli(debug: bool) -> None:
    """Assemble a generative-AI stack out of installed providers, run it, and talk to it."""
