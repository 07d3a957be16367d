"""What callers see is generated from the Protocols, and is what mypy believes."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from installed_fakes import FILES_EXAMPLE
from llamastack_files_example.api import APIS

ROOT = Path(__file__).parents[2]


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("generate_calls", ROOT / "tools" / "generate_calls.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_file_is_fresh() -> None:
    module = generator()
    assert module.TARGET.read_text(encoding="utf-8") == module.formatted(), "run 'make generate'"


def test_a_package_with_an_api_of_its_own_gets_the_same() -> None:
    target = FILES_EXAMPLE / "src" / "llamastack_files_example" / "typed_calls.py"
    assert target.read_text(encoding="utf-8") == generator().formatted(APIS, target)


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
