"""What the commands print: tables for people, JSON for programs, errors for both.

Text from a model, a backend or a plugin is escaped, so that it cannot control the terminal.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import textwrap
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from llamastack.provider.commands import CliError, WrongInputError
from llamastack.provider.control_characters import one_line
from llamastack_cli.terminal_text import for_terminal, json_for_terminal

if TYPE_CHECKING:
    from llamastack.client import LlamaStackClient
    from llamastack.provider.commands import ProgressDisplay, Style
    from llamastack_cli.server_connection import Server

_PREFIX = "error: "
_T = TypeVar("_T")
_STYLES: dict[str, dict[str, Any]] = {"bold": {"bold": True}, "dim": {"dim": True}, "red": {"fg": "red"}}


def to_cli_error(error: Exception) -> CliError:
    """The message for an exception that left a command."""
    from llamastack.provider.errors import LlamaStackError
    from llamastack.stack import ConfigError, PluginError, StackStartError
    from llamastack.stack.discovery import DiscoveryError

    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, CliError):
        return error
    if isinstance(error, ConfigError):
        return WrongInputError(*str(error).splitlines())
    if isinstance(error, LlamaStackError):
        return CliError(error.message)
    if isinstance(error, StackStartError | DiscoveryError | PluginError):
        return CliError(str(error))
    return CliError(f"unexpected {type(error).__name__}: {error} (llamastack --debug ... shows where)")


def error_lines(error: click.ClickException | CliError) -> list[str]:
    """One text per error."""
    if isinstance(error, CliError):
        return list(error.lines)
    text = error.format_message()
    if isinstance(error, click.UsageError) and error.ctx is not None:
        text += f"\nSee: {error.ctx.command_path} --help"
    return [text]


class _Warnings(logging.Handler):
    """Warnings of a command that sets up no log."""

    def __init__(self, level: int, without: Collection[str] = ()) -> None:
        super().__init__(level)
        self._without = without
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """A warning is shown once: a command may load the plugins for itself and for a stack."""
        if record.name in self._without:
            return
        line = f"{record.levelname.lower()}: {one_line(record.getMessage().rstrip())}"
        if line not in self._shown:
            self._shown.add(line)
            click.echo(line, err=True)


def show_warnings(without: Collection[str] = ()) -> None:
    """Write warnings to stderr if no log takes them. without: loggers whose warnings the command itself shows."""
    logging.lastResort = _Warnings(logging.WARNING, without)


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print text from others, or text with names from others; on stderr with `err`."""
    click.echo(for_terminal(text), err=err, nl=nl)


def show_errors(lines: Iterable[str]) -> None:
    """`error: ...` on stderr, with further lines indented; wrapped only on a terminal, so that logs can be searched."""
    indent = " " * len(_PREFIX)
    for line in lines:
        pieces = [one_line(piece) for piece in without_secrets(line).splitlines()] or [""]
        if sys.stderr.isatty():
            pieces = [part for piece in pieces for part in _wrapped(piece)]
        click.echo(_PREFIX + f"\n{indent}".join(pieces), err=True)


def without_secrets(text: str) -> str:
    """`text` without the secrets of the run config that this process has read, if any."""
    redaction = sys.modules.get("llamastack.provider.redaction")  # importing it is too slow for `--help`
    return text if redaction is None else str(redaction.without_known_secrets(text))


def _wrapped(text: str) -> list[str]:
    from shutil import get_terminal_size

    width = max(40, get_terminal_size().columns - len(_PREFIX))
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


def show_json(value: Any, *, in_one_line: bool = False) -> None:
    """`value` as JSON on stdout."""
    click.echo(json_for_terminal(json.dumps(value, indent=None if in_one_line else 2, ensure_ascii=False)))


def show_styled(pieces: Iterable[tuple[str, Style]]) -> None:
    """A line of texts from others, with their styles where stdout is a terminal. See https://no-color.org."""
    plain = not sys.stdout.isatty() or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    texts = ((one_line(text), style) for text, style in pieces if text)
    click.echo("".join(text if plain or not style else click.style(text, **_STYLES[style]) for text, style in texts))


def show_table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """A table on stdout; plain if stdout is not a terminal. headers: empty for none."""
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _show_rich_table(headers, texts, title)
    else:
        _show_plain_table(headers, texts, title)


def _show_plain_table(headers: Sequence[str], rows: list[list[str]], title: str | None) -> None:
    if title:
        click.echo(one_line(title))
    lines = [
        [one_line(" ".join(cell.split())) for cell in row] for row in ([list(headers), *rows] if headers else rows)
    ]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _show_rich_table(headers: Sequence[str], rows: list[list[str]], title: str | None) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = len(headers) or (len(rows[0]) if rows else 0)
    table = Table(
        box=box.SIMPLE_HEAD if headers else None,
        show_header=bool(headers),
        show_edge=False,
        pad_edge=False,
        title=None if title is None else Text(one_line(title)),
        title_justify="left",
        title_style="bold",
    )
    for place in range(columns):
        table.add_column(headers[place] if headers else "", overflow="fold")
    for row in rows:
        table.add_row(
            *(
                Text("\n".join(map(one_line, cell.splitlines())), style="red" if _stands_out(cell) else "")
                for cell in row
            )
        )
    Console().print(table)


def _stands_out(cell: str) -> bool:
    return cell.startswith("DOWN") or cell == "error"


@dataclass(frozen=True)
class TerminalOutput:
    """What commands of plugins get in `ctx.obj`: a `llamastack.provider.commands.CommandOutput`."""

    debug: bool = False
    server: Server | None = None

    def call_server(self, talk: Callable[[LlamaStackClient], Awaitable[_T]]) -> _T:
        if self.server is None:
            raise CliError("this command talks to a server, which its CliCommand must say by connects=True")
        return self.server.run(talk)

    def say(self, text: str, *, err: bool = False) -> None:
        say(text, err=err)

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
        show_table(headers, rows, title=title)

    def styled(self, pieces: Iterable[tuple[str, Style]]) -> None:
        show_styled(pieces)

    def json(self, value: object, *, in_one_line: bool = False) -> None:
        show_json(value, in_one_line=in_one_line)

    def to_cli_error(self, error: Exception) -> CliError:
        return to_cli_error(error)

    def show_errors(self, lines: Iterable[str]) -> None:
        show_errors(lines)

    def progress(self) -> ProgressDisplay:
        from llamastack_cli.progress import ProgressReport

        return ProgressReport()
