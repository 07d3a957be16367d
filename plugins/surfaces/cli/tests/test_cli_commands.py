"""The command `llamastack` itself: which commands there are, what they cost, how errors come out."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from installed_fakes import entry_points_in, install

from llamastack.provider.builtin_apis import BUILTIN_APIS
from llamastack.stack import discovery
from llamastack.stack.discovery import Discovery
from llamastack_cli import api_commands, group
from llamastack_cli.group import cli
from llamastack_cli.output import WrongInputError, _Warnings, show_errors, show_table

PLUGIN = """
import sys
import click
from llamastack.provider import hookimpl
from llamastack.provider.commands import CliCommand

me = sys.modules[__name__]

@click.command(help="Says hello.")
def greet():
    click.echo("hello from a plugin")

@click.command()
@click.pass_obj
def install(output):
    output.table(("NAME",), [("\\x1b[31mred",)])

@click.command()
@click.pass_obj
def ask(output):
    async def talk(client):
        return client.base_url
    output.say(output.call_server(talk))

@hookimpl
def llamastack_cli_commands():
    return [
        CliCommand("greet", "Says hello.", "greeting_fake:greet"),
        CliCommand("chat", "Not this one.", "greeting_fake:greet"),
        CliCommand("gone", "Cannot be loaded.", "greeting_fake:gone"),
        CliCommand("install", "Installs one.", "greeting_fake:install", group="providers"),
        CliCommand("list", "Not this one.", "greeting_fake:greet", group="providers"),
        CliCommand("ask", "Asks.", "greeting_fake:ask", connects=True),
        CliCommand("forgot", "Asks.", "greeting_fake:ask"),
    ]
"""

VOICES = """
import sys
from typing import Protocol
from llamastack.api.base import RoutedObject
from llamastack.api.definition import ResourceKind
from llamastack.api.webmethod import ResourceAction, webmethod
from llamastack.provider import hookimpl
from llamastack.provider.builtin_apis import routed_apis

class Voice(RoutedObject):
    pitch: int

class Speech(Protocol):
    @webmethod("/speech/say", routed_by="voice")
    async def say(self, voice: str) -> None: ...

class Voices(Protocol):
    @webmethod("/voices/list", methods=("GET",), resource_action=ResourceAction.LIST)
    async def list_voices(self) -> list[Voice]: ...

    @webmethod("/voices/register", resource_action=ResourceAction.REGISTER)
    async def register_voice(self, voice: Voice) -> None: ...

class Adds:
    @hookimpl
    def llamastack_apis(self):
        return routed_apis(Speech, Voices, ResourceKind("speech", "voices", "voice", Voice, object))

me = voices = Adds()
more = Adds()
"""


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to install fakes into; the command line sees them."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(discovery, "_default", Discovery(entry_points_in(folder, real=False)))
    return folder


def test_help_imports_nothing_that_is_slow_unless_a_plugin_adds_an_api() -> None:
    program = (
        "import sys; sys.argv = ['llamastack', '--help']\n"
        "from llamastack_cli import main\n"
        "assert main() == 0\n"
        "slow = {'pydantic', 'rich', 'httpx', 'uvicorn', 'starlette', 'anyio', 'yaml', 'llamastack.stack.stack'}\n"
        "print('imported:', sorted(slow & set(sys.modules)))"
    )
    environment = {**os.environ, "LLAMASTACK_DISABLE_PLUGINS": "llamastack-provider-jobs"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == "imported: []"


@pytest.mark.parametrize("name", [*group._KNOWN_PACKAGES, *group._COMMANDS, *group._API_COMMANDS])
def test_every_command_has_help_and_stands_in_the_list(runner: CliRunner, name: str) -> None:
    assert f"\n  {name} " in runner.invoke(cli, ["--help"]).stdout
    done = runner.invoke(cli, [name, "--help"])
    assert done.exit_code == 0
    assert done.stdout.startswith(f"Usage: llamastack {name} ")


def test_the_commands_of_apis_are_those_of_the_api_table() -> None:
    builtin = {api.name for api in BUILTIN_APIS}
    apis = {name: api for name, api in api_commands.called_apis().items() if api.name in builtin}
    assert [*group._API_COMMANDS.items()] == [(name, api_commands.api_help(apis[name])) for name in sorted(apis)]
    assert {definition.name for definition in BUILTIN_APIS} - {api.name for api in apis.values()} == {"inspect"}


def test_every_method_of_every_api_has_a_command(runner: CliRunner) -> None:
    for api in BUILTIN_APIS:
        if api.name == "inspect" or (api.pair and api.name == api.pair.resource_api):
            continue
        for method in api.methods.values():
            short = {"create_agent": "create", "delete_agent": "delete"}.get(method.name, method.name)
            done = runner.invoke(cli, [api.name, short.replace("_", "-"), "--help"])
            assert done.exit_code == 0, done.stderr
            for argument in method.parameters:
                assert f"--{argument.replace('_', '-')}" in done.stdout


def test_version(runner: CliRunner) -> None:
    assert runner.invoke(cli, ["--version"]).stdout.split() == ["llamastack", "0.1.0"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense"], "error: No such command 'nonsense'"),
        (["providers", "list", "--nonsense"], "error: No such option"),
        (["run", "--port", "x"], "error: Invalid value for '--port'"),
        (["run", "--port", "70000"], "error: Invalid value for '--port'"),
        (["models", "list", "--url", "nonsense"], "is not of the form http://HOST:PORT"),
        (["models", "list", "--provider-data", "[hunter2]"], "must be a JSON object"),
        (["models", "get"], "error: Missing argument 'NAME'"),
    ],
)
def test_wrong_usage_is_2_and_one_error(runner: CliRunner, arguments: list[str], says: str) -> None:
    done = runner.invoke(cli, arguments)
    assert done.exit_code == 2
    assert says in done.stderr
    assert done.stdout == ""
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("how", ["option", "environment", "not at all"])
def test_traceback_only_when_asked_for(runner: CliRunner, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    def fails(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("llamastack_cli.distributions.default_discovery", fails)
    options = ["--debug"] if how == "option" else []
    done = runner.invoke(
        cli,
        [*options, "distributions", "list"],
        env={"LLAMASTACK_DEBUG": "1"} if how == "environment" else {},
    )
    assert done.exit_code == 1
    assert "error: unexpected KeyError: 'a bug'" in done.stderr
    assert ("Traceback" in done.stderr) == (how != "not at all")


def test_commands_of_a_plugin(runner: CliRunner, site: Path, caplog: pytest.LogCaptureFixture) -> None:
    site.joinpath("greeting_fake.py").write_text(PLUGIN)
    install(site, "greeting", {"llamastack.plugins": {"greeting": "greeting_fake:me"}})
    assert runner.invoke(cli, ["greet"]).stdout == "hello from a plugin\n"
    listed = runner.invoke(cli, ["--help"])
    # One list, in which nothing tells our own commands from those of others.
    assert (
        "  distributions  Show the installed run configs.\n"
        "  doctor         Check a run config and its providers, and say what to do.\n"
        "  forgot         Asks.\n  gone           Cannot be loaded.\n" in listed.stdout
    )
    assert "  greet          Says hello.\n  inspect        Show " in listed.stdout
    assert listed.stdout.count("\n  chat ") == 1
    assert [r.message for r in caplog.records] == [
        "command 'chat' already exists; the command of plugin greeting:greeting is left out"
    ]
    assert runner.invoke(cli, ["gone"]).stderr.startswith(
        "error: command 'gone' (greeting_fake:gone) cannot be loaded: AttributeError: "
    )
    shown = runner.invoke(cli, ["plugins", "list"]).stdout.splitlines()
    assert [line.split() for line in shown] == [["NAME", "PACKAGE", "VERSION"], ["greeting", "greeting", "1.2.3"]]


def test_a_plugin_adds_a_command_to_a_group(runner: CliRunner, site: Path) -> None:
    site.joinpath("greeting_fake.py").write_text(PLUGIN)
    install(site, "greeting", {"llamastack.plugins": {"greeting": "greeting_fake:me"}})
    shown = runner.invoke(cli, ["providers", "--help"]).stdout
    assert re.search(r"^  install +Installs one\.$", shown, re.MULTILINE)
    assert "Not this one" not in shown
    assert runner.invoke(cli, ["providers", "install"]).stdout == "NAME\n\\x1b[31mred\n"
    assert runner.invoke(cli, ["providers", "list", "--json"]).stdout == "[]\n"


def test_a_command_of_a_plugin_gets_the_options_of_a_connection(runner: CliRunner, site: Path) -> None:
    site.joinpath("greeting_fake.py").write_text(PLUGIN)
    install(site, "greeting", {"llamastack.plugins": {"greeting": "greeting_fake:me"}})
    for _ in range(2):  # the command of the plugin itself stays as it is
        shown = runner.invoke(cli, ["ask", "--help"]).stdout
        assert (shown.count("--url"), shown.count("--provider-data")) == (1, 1)
    assert runner.invoke(cli, ["ask", "--url", "http://127.0.0.1:1"]).stdout == "http://127.0.0.1:1\n"
    assert runner.invoke(cli, ["ask"], env={"LLAMASTACK_URL": "http://127.0.0.1:2"}).stdout == "http://127.0.0.1:2\n"
    assert "is not of the form http://HOST:PORT" in runner.invoke(cli, ["ask", "--url", "nonsense"]).stderr
    assert "--url" not in runner.invoke(cli, ["forgot", "--help"]).stdout
    assert "its CliCommand must say by connects=True" in runner.invoke(cli, ["forgot"]).stderr


def test_a_warning_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    warnings = _Warnings(logging.WARNING)
    for text in ("plugin left out: a", "plugin left out: a", "plugin left out: b"):
        warnings.emit(logging.LogRecord("x", logging.WARNING, "", 0, text, (), None))
    assert capsys.readouterr().err == "warning: plugin left out: a\nwarning: plugin left out: b\n"


def test_commands_of_packages_that_are_not_there_are_named(runner: CliRunner, site: Path) -> None:
    done = runner.invoke(cli, ["run"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "error: No such command 'run': it comes with llamastack-server (pip install " in done.stderr


def test_a_plugin_adds_an_api_and_gets_its_commands(runner: CliRunner, site: Path) -> None:
    site.joinpath("voices_fake.py").write_text(VOICES)
    install(site, "voices", {"llamastack.plugins": {"voices": "voices_fake:me"}})
    assert (
        "voices        List, register and unregister the voices of a running server."
        in runner.invoke(cli, ["-h"]).stdout
    )
    commands = runner.invoke(cli, ["voices", "--help"]).stdout
    assert "register" in commands
    assert "Undo the registration" not in commands
    assert "--pitch VALUE" in runner.invoke(cli, ["voices", "register", "--help"]).stdout


def test_plugins_that_do_not_go_together_take_no_command_away(runner: CliRunner, site: Path) -> None:
    site.joinpath("voices_fake.py").write_text(VOICES)
    for name in ("voices", "more-voices"):
        install(site, name, {"llamastack.plugins": {name: f"voices_fake:{name.partition('-')[0]}"}})
    done = runner.invoke(cli, ["--help"])
    assert done.exit_code == 0
    assert done.stdout.count("voices  ") == 1
    assert "speech" in done.stdout
    listed = runner.invoke(cli, ["plugins", "list"]).stdout
    assert "API 'speech' is there already: plugin more-voices:more-voices adds it" in listed


def test_a_broken_plugin_takes_no_command_away(runner: CliRunner, site: Path) -> None:
    site.joinpath("broken_fake.py").write_text(
        "import sys\nfrom llamastack.provider import hookimpl\nme = sys.modules[__name__]\n"
        "@hookimpl\ndef llamastack_cli_commands():\n    raise OSError('no disk')\n"
    )
    install(site, "broken", {"llamastack.plugins": {"b": "broken_fake:me", "gone": "package_that_is_gone:x"}})
    done = runner.invoke(cli, ["--help"])
    assert done.exit_code == 0
    assert "memory-banks" in done.stdout
    assert runner.invoke(cli, ["greet"]).exit_code == 2
    listed = runner.invoke(cli, ["plugins", "list"]).stdout
    assert "broken: 'gone' (broken 1.2.3, entry point package_that_is_gone:x) cannot be loaded" in listed
    assert "broken: 'b' (broken 1.2.3, entry point broken_fake:me) fails in llamastack_cli_commands: no disk" in listed


def test_piped_tables_cut_nothing_off(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("NAME", "WHAT"), [("x" * 300, "a\nb"), ("y", None)])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["NAME" + " " * 298 + "WHAT", "x" * 300 + "  a b", "y"]


def test_errors_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    show_errors(WrongInputError("one\ntwo", "three").lines)
    assert capsys.readouterr().err == "error: one\n       two\nerror: three\n"


def test_a_plugin_replaces_a_command_that_is_made_from_a_method(
    runner: CliRunner, site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site.joinpath("better_fake.py").write_text(BETTER)
    install(site, "better", {"llamastack.plugins": {"better": "better_fake"}})
    assert runner.invoke(cli, ["agents", "create"]).stdout == "made better\n"
    assert runner.invoke(cli, ["agents", "--help"]).stdout.count("  create ") == 1
    assert caplog.records == []
    # The commands of objects are the same for every package.
    assert "NAME" in runner.invoke(cli, ["models", "get", "--help"]).stdout
    assert [record.message for record in caplog.records] == [
        "command 'models get' already exists; the command of a plugin is left out"
    ]


BETTER = """
import click
from llamastack.provider import hookimpl
from llamastack.provider.commands import CliCommand

@hookimpl
def llamastack_cli_commands():
    return [CliCommand(name, "Better.", "better_fake:better", group=group)
            for group, name in (("agents", "create"), ("models", "get"))]

@click.command()
def better():
    click.echo("made better")
"""


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("@{}", "error: --params: {} is not JSON: "),
        ("@{}-gone", "error: --params: {}-gone cannot be read: No such file or directory"),
        ("[", "error: --params: is not JSON: "),
    ],
)
def test_json_may_be_in_a_file(runner: CliRunner, tmp_path: Path, value: str, says: str) -> None:
    file = tmp_path / "ids.json"
    file.write_text("[")
    arguments = ["memory", "query-documents", "--bank-id", "b", "--query", "q", "--params", value.format(file)]
    done = runner.invoke(cli, arguments)
    assert done.stderr.startswith(says.format(file))
