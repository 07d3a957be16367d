"""What callers see is generated from the Protocols, and is what mypy believes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from installed_fakes import FILES_EXAMPLE
from llamastack_files_example.api import APIS

import llamastack.provider
from llamastack.provider.builtin_apis import BUILTIN_APIS
from llamastack_conformance.typed_calls import formatted, main

CORE = Path(llamastack.provider.__file__).parent / "typed_calls.pyi"

# Annotations as objects, not as text: this module has no `from __future__ import annotations`.
NOTES = '''
from collections.abc import AsyncIterator
from typing import Annotated, Optional, Protocol

from pydantic import BaseModel, Field

from llamastack.api.definition import ApiDefinition
from llamastack.api.webmethod import webmethod


class Note(BaseModel):
    text: str


class Notes(Protocol):
    """Notes.

    With a second paragraph.
    """

    @webmethod(route="/notes/{note_id}", methods=("GET",))
    async def get_note(self, note_id: str, least: Annotated[int, Field(ge=1)] = 1) -> Optional[Note]: ...

    @webmethod(route="/notes/watch", methods=("GET",))
    async def watch(self, folder: str | None = None) -> AsyncIterator["Note"]: ...


API = ApiDefinition("notes", Notes)
'''


def test_the_generated_file_is_fresh() -> None:
    assert CORE.read_text(encoding="utf-8") == formatted(BUILTIN_APIS, CORE), "run 'make generate'"


def test_the_generated_file_names_no_private_type() -> None:
    assert re.findall(r"\b_[A-Z]\w*", CORE.read_text(encoding="utf-8")) == []


def test_a_package_with_an_api_of_its_own_gets_the_same() -> None:
    target = FILES_EXAMPLE / "src" / "llamastack_files_example" / "typed_calls.py"
    assert target.read_text(encoding="utf-8") == formatted(APIS, target)


def test_annotations_may_be_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes_api.py").write_text(NOTES)
    monkeypatch.syspath_prepend(str(tmp_path))
    target = tmp_path / "typed_calls.py"
    main(["notes_api:API", str(target)])
    text = target.read_text(encoding="utf-8")
    assert "async def get_note(self, note_id: str, least: int = 1) -> Note | None: ..." in text
    assert "async def watch(self, folder: str | None = None) -> Stream[Note]: ..." in text
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(target)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("no_such_module:API", "'no_such_module:API' cannot be imported: No module named 'no_such_module'"),
        ("json", "'json' cannot be imported"),
        ("json:dumps", "'json:dumps' holds no ApiDefinition, and no list of them"),
    ],
)
def test_what_is_no_api_is_refused(place: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([place, str(tmp_path / "calls.py")])
    assert why in capsys.readouterr().err
    assert not (tmp_path / "calls.py").exists()


def test_callers_are_typed(tmp_path: Path) -> None:
    program = tmp_path / "caller.py"
    program.write_text(
        """
from llamastack import LlamaStackClient, Stack
from llamastack.api import UserMessage
from llamastack_files_example.typed_calls import FilesCalls

async def main(stack: Stack, client: LlamaStackClient) -> None:
    for apis in (stack, client):
        reply = await apis.inference.chat_completion(model="m", messages=[UserMessage(content="Hi")])
        reveal_type(reply.completion_message.stop_reason)
        async for chunk in await apis.inference.chat_completion(model="m", messages=[], stream=True):
            reveal_type(chunk.event.delta)
        reveal_type(await apis.models.get_model("m"))
        await apis.inference.chat_completion(model=5, messages=[])
    files: FilesCalls = client.files
    reveal_type(await files.list_files(folder="inbox"))
    async for block in await files.archive(folder="inbox"):
        reveal_type(block)
"""
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(program)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(FILES_EXAMPLE / "src")},
    )
    for wanted in (
        'Revealed type is "llamastack.api.common.StopReason"',
        'Revealed type is "str | llamastack.api.inference.ToolCallDelta"',
        'Revealed type is "llamastack.api.models.Model | None"',
        'Revealed type is "llamastack.api.pagination.Page[llamastack_files_example.api.StoredFile]"',
        'Revealed type is "bytes"',
        'No overload variant of "chat_completion" of "InferenceCalls" matches argument types "int"',
    ):
        assert wanted in done.stdout, done.stdout
