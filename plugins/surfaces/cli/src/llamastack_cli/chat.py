"""`llamastack chat`: one question, or a conversation on a terminal."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from llamastack.api.common import (
    CompletionMessage,
    SamplingParams,
    SamplingStrategy,
    StopReason,
    SystemMessage,
    UserMessage,
    text_of,
)
from llamastack.provider.commands import CliError
from llamastack.provider.errors import LlamaStackError
from llamastack_cli.output import say, show_errors, show_json
from llamastack_cli.server_connection import Server, server_options
from llamastack_cli.text_given import text_given

if TYPE_CHECKING:
    from llamastack.client import LlamaStackClient


@click.command()
@click.argument("message", nargs=-1)
@click.option("--model", help="Model to talk to; by default the first that can chat.")
@click.option("--system", metavar="TEXT", help="System message.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Most tokens of the reply.")
@click.option(
    "--temperature",
    type=click.FloatRange(0, 100),
    help="Sampling temperature; 0, the default, always takes the likeliest token.",
)
@click.option("--no-stream", is_flag=True, help="Print the reply when it is complete.")
@click.option("--json", "as_json", is_flag=True, help="Print the complete reply as JSON.")
@server_options
def chat(
    server: Server,
    message: tuple[str, ...],
    model: str | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    no_stream: bool,
    as_json: bool,
) -> None:
    """Talk to a model of a running server.

    The message is MESSAGE, or the text on stdin if MESSAGE is `-` or stdin is a pipe. Otherwise a conversation begins;
    /exit or Ctrl-D ends it. Control characters in a reply are shown as \\x1b; --json escapes them as JSON does.
    """
    interactive = not message and sys.stdin.isatty()
    if interactive and as_json:
        raise click.UsageError("--json needs a message")
    text = "" if interactive else text_given(message, "message")
    talk = _Chat(server, model or _default_model(server), system, _sampling(max_tokens, temperature))
    if interactive:
        _converse(talk, stream=not no_stream)
    elif as_json:
        reply = talk.say(text, stream=False, shown=False)
        show_json({"model": talk.model, "completion_message": reply.to_wire()})
    else:
        talk.say(text, stream=not no_stream)


def _sampling(max_tokens: int | None, temperature: float | None) -> SamplingParams | None:
    if max_tokens is None and not temperature:
        return None
    if not temperature:
        return SamplingParams(max_tokens=max_tokens or 0)
    # Greedy sampling takes no temperature.
    return SamplingParams(max_tokens=max_tokens or 0, strategy=SamplingStrategy.top_p, temperature=temperature)


def _default_model(server: Server) -> str:
    models = server.run(lambda client: client.models.list_models())
    usable = [model for model in models if model.can_chat]
    if not usable:
        why = "; ".join(f"{m.identifier}: {m.unavailable_reason}" for m in models if m.unavailable_reason)
        raise CliError(f"no model to talk to is served at {server.url}{f' ({why})' if why else ''}")
    chosen: str = usable[0].identifier
    others = f" ({len(usable)} are served; --model chooses)" if len(usable) > 1 else ""
    say(f"model: {chosen}{others}", err=True)
    return chosen


class _Chat:
    """A conversation so far."""

    def __init__(self, server: Server, model: str, system: str | None, sampling: SamplingParams | None) -> None:
        self.model = model
        self._server = server
        self._sampling = sampling
        self._messages: list[Any] = [SystemMessage(content=system)] if system else []

    def say(self, text: str, *, stream: bool, shown: bool = True) -> CompletionMessage:
        """Send a message and return the reply, printed as it arrives. Both are kept if the call succeeds."""
        messages = [*self._messages, UserMessage(content=text)]

        async def talk(client: LlamaStackClient) -> CompletionMessage:
            arguments: dict[str, Any] = {"model": self.model, "messages": messages, "stream": stream}
            if self._sampling is not None:
                arguments["sampling_params"] = self._sampling
            answer = await client.inference.chat_completion(**arguments)
            return await _streamed(answer) if stream else _whole(answer, shown)

        reply = self._server.run(talk)
        if shown and reply.stop_reason is StopReason.out_of_tokens:
            click.echo("(cut off: out of tokens)", err=True)
        self._messages = [*messages, reply]
        return reply


async def _streamed(events: Any) -> CompletionMessage:
    pieces: list[str] = []
    reason = StopReason.end_of_turn
    try:
        async for chunk in events:
            delta = chunk.event.delta
            text = delta if isinstance(delta, str) else _tool_call_text(delta.content)
            if text:
                pieces.append(text)
                say(text, nl=False)
            reason = chunk.event.stop_reason or reason
    finally:
        await events.aclose()
        if pieces:
            click.echo()
    return CompletionMessage(content="".join(pieces), stop_reason=reason)


def _tool_call_text(content: Any) -> str:
    # The parsed call repeats the text that came before it.
    return content if isinstance(content, str) else ""


def _whole(answer: Any, shown: bool) -> CompletionMessage:
    message: CompletionMessage = answer.completion_message
    if shown:
        say(text_of(message.content))
    return message


def _converse(talk: _Chat, *, stream: bool) -> None:
    with suppress(ImportError):  # Windows has no readline; input() works without it
        import readline  # noqa: F401 - gives input() a history and line editing
    while True:
        try:
            text = input("> ").strip()
        except EOFError:
            click.echo()
            return
        except KeyboardInterrupt:
            click.echo()
            continue
        if text == "/exit":
            return
        if not text:
            continue
        try:
            talk.say(text, stream=stream)
        except LlamaStackError as error:
            show_errors([error.message])
        except KeyboardInterrupt:
            click.echo("(interrupted)", err=True)
