"""The arguments of a method as options of a command, made from its definition."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import anyio
import click

from llamastack.api.definition import MethodDefinition, members_of
from llamastack.api.files import OCTETS, File
from llamastack.api.schema import Schema
from llamastack.provider.commands import WrongInputError
from llamastack_cli.fields import words_of

_PREFIX = "argument_"
_JSON_BEGINS = ("[", "{", '"')
"""What makes a value JSON where a plain text is allowed, too."""
_TAKEN = {"url", "provider-data", "output", "json", "help"}


def options_of(method: MethodDefinition) -> list[click.Option]:
    """One option per argument. `arguments_of` turns their values into arguments."""
    return [_option(method, name, field) for name, field in method.fields.items()]


def _option(method: MethodDefinition, name: str, field: Schema) -> click.Option:
    flag, kind = _flag(name), words_of(field)
    if kind.startswith("boolean"):
        return click.Option([f"{flag}/--no-{flag[2:]}", _PREFIX + name], default=None, required=field.required)
    is_list = name in method.list_parameters and name not in method.json_parameters
    type_: click.Path | None = None
    metavar = "VALUE"
    if name in method.json_parameters:
        metavar = "TEXT|JSON" if _takes_text(method, name) else "JSON|@FILE"
    if name in method.file_parameters or name == method.bytes_parameter:
        type_, metavar, kind = click.Path(exists=True, dir_okay=False, path_type=Path), "FILE", "file to send"
    repeated = " May be given several times." if is_list else ""
    return click.Option(
        [flag, _PREFIX + name],
        type=type_,
        metavar=metavar,
        help=(field.description or f"{kind}.") + repeated,
        multiple=is_list,
        required=field.required,
    )


def _takes_text(method: MethodDefinition, name: str) -> bool:
    return str in members_of(method.hints[name])


def _flag(name: str) -> str:
    text = name.replace("_", "-")
    return f"--argument-{text}" if text in _TAKEN else f"--{text}"


async def arguments_of(method: MethodDefinition, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call, from the values of the options. Raises WrongInputError naming the option."""
    made: dict[str, Any] = {}
    for option, value in given.items():
        name = option.removeprefix(_PREFIX)
        if value is None or value == ():
            continue
        if name in method.file_parameters:
            files = [await _file_at(path) for path in (value if isinstance(value, Iterable) else [value])]
            made[name] = files if name in method.list_parameters else files[0]
        elif name == method.bytes_parameter:
            made[name] = value.read_bytes()
        elif name in method.json_parameters and not (_takes_text(method, name) and value[:1] not in _JSON_BEGINS):
            made[name] = await _json_of(_flag(name), value)
        else:
            made[name] = list(value) if isinstance(value, tuple) else value
    return made


async def _json_of(flag: str, value: str) -> Any:
    """The value of an option, or what the file holds that it names by `@FILE`."""
    try:
        text = await anyio.Path(value[1:]).read_text(encoding="utf-8") if value.startswith("@") else value
        return json.loads(text)
    except OSError as error:
        raise WrongInputError(f"{flag}: {value[1:]} cannot be read: {error.strerror}") from None
    except ValueError as error:
        where = f"{value[1:]} " if value.startswith("@") else ""
        raise WrongInputError(f"{flag}: {where}is not JSON: {error}") from None


async def _file_at(path: Path) -> File:
    return await File.from_path(path, media_type=mimetypes.guess_type(path.name)[0] or OCTETS)
