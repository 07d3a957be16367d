"""The example of docs/apis.md, run as it stands there."""

from __future__ import annotations

import shlex
import sys
import tomllib
from pathlib import Path

import anyio
import httpx
import pytest
from click.testing import CliRunner
from docs_of_apis import block_of_page, write_package
from installed_fakes import entry_points_in, install
from served_stack import served_stack

from llamastack.stack import discovery
from llamastack.stack.discovery import Discovery
from llamastack_cli.group import cli

pytestmark = pytest.mark.anyio
CONFIG = {"providers": {"recordings": [{"provider_id": "kept", "provider_type": "memory"}]}}


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Discovery:
    """The package of the page is installed, and there is a file to send."""
    written = write_package(tmp_path)
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name in [name for name in sys.modules if name.partition(".")[0] in ("llamastack_recordings", "caller")]:
        monkeypatch.delitem(sys.modules, name)
    tmp_path.joinpath("hello.wav").write_bytes(b"RIFF" * 1000)
    install(written / "src", project["name"], project["entry-points"], project["version"])
    monkeypatch.syspath_prepend(written / "src")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(discovery, "_default", Discovery(entry_points_in()))  # it is on the path now
    return discovery.default_discovery()


async def test_the_caller_and_the_commands_work(
    plugged: Discovery, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import caller  # type: ignore[import-not-found]

    async with served_stack(CONFIG, plugged) as (_, http):
        await caller.main(str(http.base_url))
        assert capsys.readouterr().out == "Hello.wav audio/wav 4000\nr1 Hello\nstarted 0\nended 1\n"
        for line in block_of_page("console", "$ llamastack recordings").splitlines():
            _, program, *arguments = shlex.split(line)
            if program == "llamastack":
                await command(*arguments, "--url", str(http.base_url))
        assert tmp_path.joinpath("copy.wav").read_bytes() == b"RIFF" * 1000
        await by_curl(http)


async def command(*arguments: str) -> None:
    done = await anyio.to_thread.run_sync(lambda: CliRunner().invoke(cli, arguments))
    assert done.exit_code == 0, done.output


async def by_curl(http: httpx.AsyncClient) -> None:
    """What the two lines with curl send."""
    added = await http.post("/recordings", data={"title": "Hello"}, files={"audio": ("hello.wav", b"x", "audio/wav")})
    assert (added.status_code, added.json()) == (201, {"id": "r2", "title": "Hello", "size": 1})
    assert (await http.delete("/recordings/r1")).status_code == 204
    replaced = await http.put("/recordings/r2/audio", content=b"abc")
    assert replaced.json()["size"] == 3
    assert (await http.patch("/recordings/r2", json={"title": "New"})).json()["title"] == "New"
    assert (await http.get("/recordings/r2/wave")).content == b"abc"
    assert (await http.get("/recordings/r2/progress")).text.startswith('event: started\ndata: {"type":"started"')
