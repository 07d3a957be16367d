"""The arguments of a method as options of a command, made from its definition."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from llamastack.api.definition import MethodDefinition, members_of
from llamastack.api.files import OCTETS, File
from llamastack.provider.commands import WrongInputError
from llamastack_cli.fields import type_of

_PREFIX = "argument_"
_TAKEN = {"url", "provider-data", "output", "json", "help"}


def options_of(method: MethodDefinition) -> list[click.Option]:
    """One option per argument. `arguments_of` turns their values into arguments."""
    schema = method.request_model.model_json_schema()
    definitions = schema.get("$defs", {})
    return [
        _option(method, name, described, type_of(described, definitions))
        for name, described in schema.get("properties", {}).items()
    ]


def _option(method: MethodDefinition, name: str, schema: Mapping[str, Any], kind: str) -> click.Option:
    flag = _flag(name)
    required = method.parameters[name].default is method.parameters[name].empty
    is_list = name in method.list_parameters and name not in method.json_parameters
    if bool in members_of(method.hints[name]):
        return click.Option([f"{flag}/--no-{flag[2:]}", _PREFIX + name], default=None, required=required)
    type_: click.Path | None = None
    metavar = "JSON" if name in method.json_parameters else "VALUE"
    if name in method.file_parameters or name == method.bytes_parameter:
        type_, metavar, kind = click.Path(exists=True, dir_okay=False, path_type=Path), "FILE", "file to send"
    described = str(schema.get("description") or f"{kind}.")
    repeated = " May be given several times." if is_list else ""
    return click.Option(
        [flag, _PREFIX + name],
        type=type_,
        metavar=metavar,
        help=described + repeated,
        multiple=is_list,
        required=required,
    )


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
        elif name in method.json_parameters:
            try:
                made[name] = json.loads(value)
            except ValueError as error:
                raise WrongInputError(f"{_flag(name)}: is not JSON: {error}") from None
        else:
            made[name] = list(value) if isinstance(value, tuple) else value
    return made


async def _file_at(path: Path) -> File:
    return await File.from_path(path, media_type=mimetypes.guess_type(path.name)[0] or OCTETS)
