"""`llamastack models`, `shields`, `memory-banks`: one group per kind of resource, made from its definition.

The options of `register` are the fields of the resource's pydantic type, so a new field or kind needs no code here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from llamastack.api.definition import ApiDefinition, ResourceKind
from llamastack.api.pagination import all_listed
from llamastack.api.schema import Schema
from llamastack.api.webmethod import ResourceAction
from llamastack.provider.commands import WrongInputError
from llamastack.provider.errors import ObjectNotFoundError
from llamastack.provider.validation import invalid_request
from llamastack_cli.fields import words_of
from llamastack_cli.method_options import arguments_of, options_of
from llamastack_cli.output import say, show_json, show_table
from llamastack_cli.server_connection import Server, server_options

if TYPE_CHECKING:
    from llamastack.client import LlamaStackClient

_LONGEST_REGISTRATION_S = 24 * 3600.0  # the provider may download a model
_COMMON = ("identifier", "provider_id", "unavailable_reason")
_EMPTY: tuple[Any, ...] = (None, "", {}, [])
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def is_resource_api(definition: ApiDefinition) -> bool:
    """Whether it lists and registers objects, such as models."""
    return definition.pair is not None and definition.name == definition.pair.resource_api


def objects_help(definition: ApiDefinition) -> str:
    """The line of a resource API in the list of commands."""
    label = definition.pair.label if definition.pair else definition.name
    return f"List, register and unregister the {label}s of a running server."


def object_command(definition: ApiDefinition) -> click.Group:
    """The command group of one resource API."""
    if definition.pair is None:
        raise TypeError(f"API '{definition.name}' registers no resources")
    return _Objects(definition, definition.pair).group()


class _Objects:
    """Makes the commands for the resources of one kind."""

    def __init__(self, definition: ApiDefinition, pair: ResourceKind) -> None:
        self.definition = definition
        self.label = pair.label
        self.pair = pair
        fields = Schema.of(pair.adapter).fields
        self.fields = {name: field for name, field in fields.items() if name not in _COMMON}

    def group(self) -> click.Group:
        made = click.Group(
            self.definition.name.replace("_", "-"),
            help=objects_help(self.definition),
        )
        makers = {
            ResourceAction.LIST: self._list,
            ResourceAction.GET: self._get,
            ResourceAction.REGISTER: self._register,
            ResourceAction.UNREGISTER: self._unregister,
        }
        there = {method.web.resource_action for method in self.definition.methods.values()}
        for action, make in makers.items():
            if action in there:
                made.add_command(make())
        return made

    async def _call(self, client: LlamaStackClient, action: ResourceAction, *arguments: Any) -> Any:
        method = self.definition.method_for(action).name
        return await client.api(self.definition.name).methods[method](*arguments)

    # ---- the commands --------------------------------------------------------------------------------------------

    def _list(self) -> click.Command:
        @click.command("list", help=f"List the {self.label}s that are served.")
        @_as_json
        @server_options
        def command(server: Server, as_json: bool, **given: Any) -> None:
            found, notes = server.run(lambda client: self._listed(client, given))
            for note in notes:
                say(f"note: {note}", err=True)
            if as_json:
                show_json([item.to_wire() for item in found])
            elif found:
                self._show_list(found)
            else:
                say(f"no {self.label} is served at {server.url}", err=True)

        command.params += options_of(self.definition.method_for(ResourceAction.LIST))
        return command

    async def _listed(self, client: LlamaStackClient, given: Mapping[str, Any]) -> tuple[list[Any], list[str]]:
        method = self.definition.method_for(ResourceAction.LIST)
        arguments = await arguments_of(method, given)
        call = client.api(self.definition.name).methods[method.name]
        notes = []
        if "limit" in arguments:  # the caller wants one page
            page = await call(**arguments)
            found = page.data
            if page.has_more:
                notes.append(f"there are more: --after {page.last_id}")
        else:
            found = [item async for item in all_listed(call, **arguments)]
        health = await client.api("inspect").health()
        mine = (item for item in health.providers if item.api == self.pair.routed_api and item.note)
        return found, notes + [f"provider '{item.provider_id}' {item.note}" for item in mine]

    def _show_list(self, found: Sequence[Any]) -> None:
        # A column that only repeats the identifiers is left out.
        used = [
            name
            for name in self.fields
            if any(getattr(item, name, None) not in (*_EMPTY, item.identifier) for item in found)
        ]
        show_table(
            ["IDENTIFIER", "PROVIDER", *(name.replace("_", " ").upper() for name in used), "STATUS"],
            [
                (
                    item.identifier,
                    item.provider_id,
                    *(_cell(getattr(item, name, None)) for name in used),
                    f"unavailable: {item.unavailable_reason}" if item.unavailable_reason else "ok",
                )
                for item in found
            ],
        )

    def _get(self) -> click.Command:
        @click.command("get", help=f"Show one {self.label}.")
        @click.argument("name")
        @_as_json
        @server_options
        def command(server: Server, name: str, as_json: bool) -> None:
            async def talk(client: LlamaStackClient) -> Any:
                found = await self._call(client, ResourceAction.GET, name)
                if found is None:
                    served, _ = await self._listed(client, {})
                    names = [item.identifier for item in served if item.unavailable_reason is None]
                    raise ObjectNotFoundError(self.label, name, available=names)
                return found

            wire = server.run(talk).to_wire()
            if as_json:
                show_json(wire)
            else:
                show_table((), [(field.replace("_", " "), _cell(value)) for field, value in wire.items()])

        return command

    def _register(self) -> click.Command:
        @click.command("register", help=f"Register a {self.label}.")
        @click.argument("name")
        @click.option("--provider-id", help="Instance that serves it; optional if there is only one.")
        @_as_json
        @server_options
        def command(server: Server, name: str, provider_id: str | None, as_json: bool, **given: str | None) -> None:
            item = self._made(name, provider_id, given)

            async def talk(client: LlamaStackClient) -> Any:
                from llamastack_cli.progress import watched

                await watched(client, self._call(client, ResourceAction.REGISTER, item))
                return await self._call(client, ResourceAction.GET, name)

            # If another client has unregistered it since, the resource is shown as it was sent.
            registered = server.run(talk, timeout_s=_LONGEST_REGISTRATION_S) or item
            if as_json:
                show_json(registered.to_wire())
            else:
                say(f"registered {self.label} '{name}' with provider '{registered.provider_id}'")

        command.params += [_option(name, field) for name, field in self.fields.items()]
        return command

    def _unregister(self) -> click.Command:
        @click.command("unregister", help=f"Undo the registration of a {self.label}.")
        @click.argument("name")
        @_as_json
        @server_options
        def command(server: Server, name: str, as_json: bool) -> None:
            server.run(lambda client: self._call(client, ResourceAction.UNREGISTER, name))
            if as_json:
                show_json({"unregistered": name})
            else:
                say(f"unregistered {self.label} '{name}'")

        return command

    # ---- the fields of a resource ---------------------------------------------------------------------------------

    def _made(self, name: str, provider_id: str | None, given: Mapping[str, str | None]) -> Any:
        values: dict[str, Any] = {"identifier": name}
        if provider_id is not None:
            values["provider_id"] = provider_id
        for field, text in given.items():
            if text is None:
                continue
            values[field] = text
            if not self.fields[field].is_text():
                try:
                    values[field] = json.loads(text)
                except ValueError as error:
                    raise WrongInputError(f"--{field.replace('_', '-')}: is not JSON: {error}") from None
        try:
            return self.pair.adapter.validate_python(values)
        except ValidationError as error:
            raise WrongInputError(invalid_request(error, self.pair.adapter).message) from None


def _option(name: str, field: Schema) -> click.Option:
    constants = [member.source.get("const") for member in field.members()]
    choice = None if None in constants else click.Choice(constants)
    return click.Option(
        [f"--{name.replace('_', '-')}", name],
        type=choice,
        metavar=None if choice else ("VALUE" if field.is_text() else "JSON"),
        help=field.description or ("" if choice else f"{words_of(field)}."),
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
