"""What commands print of texts that others wrote: nothing in it steers a terminal or passes for another line."""

from __future__ import annotations

import json
import logging
import pickle
import re
from collections.abc import AsyncIterator

import pytest
from click.testing import CliRunner

from llamastack.api.common import CompletionMessage, StopReason
from llamastack.api.inference import (
    ChatCompletionResponse,
    ChatCompletionResponseEvent,
    ChatCompletionResponseEventType,
    ChatCompletionResponseStreamChunk,
)
from llamastack.provider.commands import CommandOutput, WrongInputError
from llamastack_cli import output
from llamastack_cli.chat import _streamed, _whole
from llamastack_cli.group import cli

pytestmark = pytest.mark.anyio
HOSTILE = "m\x1b[2J\x1b]0;title\x07\x9b31m\u202egnp\u2028error: forged\r\nerror: forged too\ud83d"
STEERING = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e\ud800-\udfff]")


@pytest.mark.parametrize("terminal", [False, True])
def test_tables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "200")
    output.show_table(("NAME", "REASON"), [("[bold]name[/bold]", HOSTILE)], title=f"Health: {HOSTILE}")
    shown = capsys.readouterr().out
    assert not STEERING.search(shown)
    assert "\\x1b[2J" in shown
    assert "[bold]name[/bold]" in shown


def test_errors_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_errors([HOSTILE])
    shown = capsys.readouterr().err
    assert not STEERING.search(shown)
    assert [line for line in shown.splitlines() if line.startswith("error: ")] == [shown.splitlines()[0]]


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_json({"text": HOSTILE + "Grüße 世界"})
    shown = capsys.readouterr().out
    assert not STEERING.search(shown)
    assert json.loads(shown) == {"text": HOSTILE + "Grüße 世界"}
    assert "Grüße 世界" in shown


def test_what_a_model_says_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    message = CompletionMessage(content="one\n\ttwo\r\nthree \x1b[2J", stop_reason=StopReason.end_of_turn)
    _whole(ChatCompletionResponse(completion_message=message), True)
    assert capsys.readouterr().out == "one\n\ttwo\nthree \\x1b[2J\n"


async def test_a_streamed_reply_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    async def chunks() -> AsyncIterator[ChatCompletionResponseStreamChunk]:
        for text in ("one\n", "\x1b", "[2J\x9b31m"):
            event = ChatCompletionResponseEvent(event_type=ChatCompletionResponseEventType.progress, delta=text)
            yield ChatCompletionResponseStreamChunk(event=event)

    await _streamed(chunks())
    assert capsys.readouterr().out == "one\n\\x1b[2J\\x9b31m\n"


def test_a_plugin_that_is_left_out_is_told_of_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(*_: object, **__: object) -> None:
        logger = logging.Logger("llamastack.plugins")
        logger.warning("plugin left out: %s", HOSTILE)

    monkeypatch.setattr("llamastack_cli.distributions.show_json", warn)
    done = CliRunner().invoke(cli, ["distributions", "list", "--json"])
    assert done.stderr.startswith("warning: plugin left out: m\\x1b[2J")
    assert len(done.stderr.splitlines()) == 1
    assert not STEERING.search(done.stderr)


def test_the_output_of_commands_can_be_given_to_other_processes(capsys: pytest.CaptureFixture[str]) -> None:
    given: CommandOutput = pickle.loads(pickle.dumps(output.TerminalOutput(debug=True)))
    assert given.debug is True
    given.say("a\x1b[31m")
    given.json({"b": 1})
    error = given.to_cli_error(ExceptionGroup("several", [WrongInputError("one", "two")]))
    assert (error.exit_code, error.lines) == (2, ("one", "two"))
    given.show_errors(error.lines)
    shown = capsys.readouterr()
    assert shown.out == 'a\\x1b[31m\n{\n  "b": 1\n}\n'
    assert shown.err == "error: one\nerror: two\n"


@pytest.mark.parametrize(
    ("terminal", "term", "no_color", "coloured"),
    [
        (True, "xterm", "", True),
        (True, "xterm", "1", False),
        (True, "dumb", "", False),
        (False, "xterm", "", False),
    ],
)
def test_a_line_with_styles(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
    term: str,
    no_color: str,
    coloured: bool,
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("NO_COLOR", no_color)
    output.TerminalOutput().styled([("", "dim"), ("a ", ""), (HOSTILE, "red")])
    shown = capsys.readouterr().out
    assert shown.startswith("a \x1b[31mm\\x1b[2J" if coloured else "a m\\x1b[2J")
    assert not STEERING.search(shown.replace("\x1b[31m", "").replace("\x1b[0m", ""))


def test_json_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.TerminalOutput().json({"text": HOSTILE, "more": [1]}, in_one_line=True)
    shown = capsys.readouterr().out
    assert shown.count("\n") == 1
    assert json.loads(shown) == {"text": HOSTILE, "more": [1]}
