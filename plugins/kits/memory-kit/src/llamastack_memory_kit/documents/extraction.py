"""The readable text of files of HTML, PDF, DOCX, CSV and JSON."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from llamastack.provider.errors import InternalError, InvalidRequestError
from llamastack_memory_kit.documents.outline import Heading, ReadDocument
from llamastack_memory_kit.documents.worker import NOT_INSTALLED, answer

_WORKER = Path(__file__).with_name("worker.py")
_MOST_AT_ONCE = 2
_MEMORY_BYTES = 2**30
_READ_HERE = {"csv", "json"}
_MOST_READ_HERE = 32 * 1024
"""Bytes of CSV or JSON that take less time to read than a process takes to start."""
# The environment may hold keys, and a program that reads hostile files must not see them.
_KEPT_VARIABLES = (
    "PATH",
    "LD_LIBRARY_PATH",
    "LANG",
    "LC_ALL",
    "HOME",
    "TMPDIR",
    "SYSTEMROOT",
    "PYTHONHOME",
    "PYTHONPATH",
)
_slots: RunVar[anyio.CapacityLimiter] = RunVar("llamastack_document_slots")


@dataclass(frozen=True, slots=True)
class ExtractionLimits:
    """The limits for reading one document that is no plain text.

    seconds: the time limit. pages: the most pages of a PDF. memory_bytes: the most memory of the reading process.
    """

    seconds: float = 30.0
    pages: int = 2000
    memory_bytes: int = _MEMORY_BYTES


async def extracted(kind: str, raw: bytes, limits: ExtractionLimits, max_bytes: int, param: str) -> ReadDocument:
    """The text of a document. A separate process reads it, but short CSV and JSON; at most two run at once.

    kind: `html`, `csv` or `json`, where `raw` is UTF-8, or `pdf` or `docx`. max_bytes: the most bytes of text.

    Raises InvalidRequestError, naming `param`, if the document is broken, encrypted, without text, or over a limit.
    """
    if kind in _READ_HERE and len(raw) <= _MOST_READ_HERE:
        return _answered(answer(kind, raw, limits.pages, max_bytes), param)
    arguments = (limits.pages, max_bytes, limits.memory_bytes, math.ceil(limits.seconds) + 1)
    command = [sys.executable, "-P", str(_WORKER), kind, *map(str, arguments)]
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    async with _limiter():
        with anyio.move_on_after(limits.seconds):
            done = await anyio.run_process(
                command, input=raw, check=False, stderr=subprocess.DEVNULL, env=environment, start_new_session=True
            )
            if done.returncode in (2, NOT_INSTALLED):
                raise InternalError("the program that reads documents could not be started")
            if done.returncode == 0 and done.stdout:
                return await anyio.to_thread.run_sync(_answered, done.stdout, param)
            # Killed or out of memory, because of the limits that the process sets for itself.
            raise InvalidRequestError(
                f"the document is {kind.upper()} that takes too much time or memory to read", param=param
            )
    raise InvalidRequestError(
        f"the document is {kind.upper()} that takes more than {limits.seconds:g} s to read", param=param
    )


def _answered(made: bytes, param: str) -> ReadDocument:
    if made[:1] == b"-":
        raise InvalidRequestError(f"the document {made[1:].decode()}", param=param)
    head, _, text = made[1:].partition(b"\n")
    title, headings = json.loads(head)
    return ReadDocument(text.decode("utf-8"), title, tuple(Heading(*each) for each in headings))


def _limiter() -> anyio.CapacityLimiter:
    """One limiter for each event loop."""
    try:
        return _slots.get()
    except LookupError:
        made = anyio.CapacityLimiter(_MOST_AT_ONCE)
        _slots.set(made)
        return made
