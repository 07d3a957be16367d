"""A process of its own with a stack and the provider under test, which a check kills.

`python -m llamastack_conformance.provider_process WORK RESULT GIVEN`: RESULT is a file that it appends lines of
JSON to, GIVEN one with the arguments as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from llamastack.stack.discovery import default_discovery
from llamastack_conformance.checks import NotApplicable
from llamastack_conformance.installed_suites import suite_of
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.stack_folder import StackFolder
from llamastack_conformance.store_under_test import StoreProcess


@asynccontextmanager
async def process_with(subject: Subject, folder: StackFolder, work: str) -> AsyncIterator[StoreProcess]:
    """A process that calls `<work>_until_killed` of the API's suite, on a stack in this folder; killed in the end.

    Raises NotApplicable if another process does not find the provider.
    """
    if subject.discovery is not default_discovery():
        raise NotApplicable("the provider is not installed in a way that another process could find")
    given = {
        "api": subject.api,
        "type": subject.provider_type,
        "document": subject.document,
        "folder": str(folder.path),
        "registries": folder.registries,
    }
    with tempfile.TemporaryDirectory(prefix="llamastack-conformance-") as made:  # for its owner alone: keys are in it
        arguments, result = Path(made, "given"), Path(made, "result")
        await anyio.Path(arguments).write_text(json.dumps(given, default=str), encoding="utf-8")
        command = [sys.executable, "-m", __name__, work, str(result), str(arguments)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        async with await anyio.open_process(
            command, stdin=subprocess.DEVNULL, stdout=None, stderr=subprocess.PIPE, env=environment
        ) as running:
            try:
                yield StoreProcess(work, running, result)
            finally:
                if running.returncode is None:
                    running.kill()


async def run(work: str, result: Path, given: dict[str, Any]) -> None:
    """Start the stack and do the work."""
    subject = Subject(given["api"], given["type"], given["document"])
    suite: Any = suite_of(given["api"])()

    def say(line: object) -> None:
        with result.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    folder = StackFolder(Path(given["folder"]), registries=given["registries"])
    async with subject.start(folder=folder) as running:
        await getattr(suite, f"{work}_until_killed")(running, say)


def main(work: str, result: str, given: str) -> None:
    anyio.run(run, work, Path(result), json.loads(Path(given).read_text(encoding="utf-8")))


if __name__ == "__main__":
    main(*sys.argv[1:])
