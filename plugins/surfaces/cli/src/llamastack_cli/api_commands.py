"""`llamastack <API>`: one command per method, made from its definition."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

import anyio
import click

from llamastack.api.definition import ApiDefinition, MethodDefinition, ReplyKind
from llamastack.provider.commands import CliError
from llamastack_cli.method_options import arguments_of, options_of
from llamastack_cli.output import say, show_json
from llamastack_cli.resource_commands import is_resource_api, object_command, objects_help
from llamastack_cli.server_connection import Server, installed_plugins, server_options

if TYPE_CHECKING:
    from llamastack.client import LlamaStackClient


def called_apis() -> dict[str, ApiDefinition]:
    """The APIs that have commands, by the name of their command: all but `inspect`, which has one of its own."""
    return {
        name.replace("_", "-"): definition
        for name, definition in installed_plugins().apis().items()
        if definition.pair is not None or not definition.implemented_by_stack
    }


def api_help(definition: ApiDefinition) -> str:
    """The line of an API in the list of commands."""
    if is_resource_api(definition):
        return objects_help(definition)
    doc = (definition.protocol.__doc__ or "").strip().partition("\n")[0]
    return doc or f"Call the API '{definition.name}'."


def api_command(definition: ApiDefinition) -> click.Group:
    """The command group of one API."""
    if is_resource_api(definition):
        return object_command(definition)
    made = click.Group(definition.name.replace("_", "-"), help=api_help(definition))
    for method in definition.methods.values():
        made.add_command(_command(method))
    return made


def _command_name(method: MethodDefinition) -> str:
    """`create` for `create_agent` and `list` for `list_agents` of the API `agents`; else the name of the method."""
    verb, _, noun = method.name.partition("_")
    short = verb if noun in (method.api, method.api.removesuffix("s")) else method.name
    return short.replace("_", "-")


def _command(method: MethodDefinition) -> click.Command:
    @click.command(_command_name(method), help=method.doc)
    @server_options
    def command(server: Server, output: str | None = None, **given: Any) -> None:
        if output is None and method.reply_kind is not ReplyKind.JSON and sys.stdout.isatty():
            raise CliError("the reply is bytes: name a file with --output, or - for the terminal")

        async def talk(client: LlamaStackClient) -> None:
            arguments = await arguments_of(method, given)
            await _show(method, await client.api(method.api).methods[method.name](**arguments), output)

        server.run(talk)

    command.params += options_of(method)
    if method.reply_kind is not ReplyKind.JSON:
        command.params.append(
            click.Option(["--output", "output"], metavar="FILE", help="File to write the reply to; - for stdout.")
        )
    return command


async def _show(method: MethodDefinition, result: Any, output: str | None) -> None:
    if method.reply_kind is not ReplyKind.JSON:
        await _write(result, output)
    elif isinstance(result, AsyncIterable):
        async for piece in result:
            say(json.dumps(method.piece and method.piece.dump_python(piece, mode="json"), ensure_ascii=False))
    elif result is not None:
        show_json(method.result.dump_python(result, mode="json"))


async def _write(content: bytes | AsyncIterable[bytes], output: str | None) -> None:
    if output in (None, "-"):
        async for block in _blocks_of(content):
            sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
        return
    # The download has another name until it is complete, so that a failure leaves an existing file as it was.
    part = anyio.Path(f"{output}.part")
    try:
        async with await anyio.open_file(part, "wb") as opened:
            async for block in _blocks_of(content):
                await opened.write(block)
        await part.replace(str(output))
    finally:
        await part.unlink(missing_ok=True)


async def _blocks_of(content: bytes | AsyncIterable[bytes]) -> AsyncIterable[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    async for block in content:
        yield block
