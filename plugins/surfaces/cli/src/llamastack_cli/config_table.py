"""`llamastack providers config-table`: the fields of a provider's config as a table of Markdown, for its README."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llamastack.provider.commands import CliError, WrongInputError

if TYPE_CHECKING:
    from llamastack_cli.fields import ConfigField

_BLOCK = re.compile(r"(<!-- config -->\n).*?(<!-- /config -->)", re.DOTALL)
_NO_DEFAULT = (None, "null", "(computed)")


@click.command("config-table")
@click.argument("provider_type", metavar="TYPE")
@click.option("--api", help="API of the type, if several APIs have it.")
@click.option("--write", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Renew it in this file.")
@click.option(
    "--check", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Fail if this file has another one."
)
def config_table(provider_type: str, api: str | None, write: Path | None, check: Path | None) -> None:
    """Print the fields of a provider's config as a table of Markdown.

    In a file it stands between the lines <!-- config --> and <!-- /config -->.
    """
    from llamastack_cli.fields import fields_of

    text = markdown(fields_of(_config_class(provider_type, api)))
    if write is None and check is None:
        click.echo(text, nl=False)
    for file in filter(None, (write, check)):
        old = file.read_text(encoding="utf-8")
        new = _replaced(file, old, text)
        if file == write:
            file.write_text(new, encoding="utf-8")
        elif new != old:
            raise CliError(
                f"{file} has another table of the config; renew it: llamastack providers config-table "
                f"{provider_type} --write {file}"
            )


def _config_class(provider_type: str, api: str | None) -> type:
    from llamastack.stack.discovery import default_discovery

    discovery = default_discovery()
    found = [installed for installed in discovery.providers(api) if installed.name == provider_type]
    if not found:
        known = ", ".join(sorted({installed.name for installed in discovery.providers(api)})) or "none"
        raise WrongInputError(f"'{provider_type}' is not installed. Installed: {known}.")
    if len(found) > 1:
        apis = ", ".join(installed.api for installed in found)
        raise WrongInputError(f"'{provider_type}' is a type of several APIs ({apis}): choose one with --api")
    try:
        return discovery.load_spec(found[0]).load_config_class()
    except Exception as error:  # a module of the provider may raise anything
        raise CliError(f"'{provider_type}' ({found[0].origin}) cannot be loaded: {error}") from error


def markdown(fields: Iterable[ConfigField]) -> str:
    """The table; one row for each field."""
    rows = [("config", "type", "default", "what"), ("---",) * 4]
    for field in fields:
        default = "" if field.default in _NO_DEFAULT else f"`{field.default}`"
        kind = field.type.removesuffix(" or null")
        rows.append((f"`{field.name}`", kind, "required" if field.required else default, field.description))
    return "".join(f"| {' | '.join(_cell(cell) for cell in row)} |\n" for row in rows).replace("| --- ", "|---")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def _replaced(file: Path, old: str, table: str) -> str:
    if _BLOCK.search(old) is None:
        raise WrongInputError(f"{file} has no lines '<!-- config -->' and '<!-- /config -->' for the table")
    return _BLOCK.sub(lambda found: f"{found[1]}\n{table}\n{found[2]}", old, count=1)
