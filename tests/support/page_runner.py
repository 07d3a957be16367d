"""A page of the documentation as a reader follows it: its files are written, its commands run, its output compared.

What a page has for it:

- A block of code whose first line is `# some/file.py` is that file.
- One whose first line is `# in some/file.py` has what to replace in that file: imports from the same modules, and
  functions and classes of the same names.
- In a `console` block each line after `$ ` is a command; `\\` at its end continues it. The lines below it are its
  output, in which `...` stands for anything, also for any lines. Output that is not shown is not compared.
- A command fails if and only if its output shows a line that begins with `error:` or `FAILED`.
- `llamastack run` goes on until the next one, or until the page ends.

The server has a port of its own, so the address `127.0.0.1:8321` is another one here.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import signal
import socket
import subprocess
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ADDRESS = "127.0.0.1:8321"
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"# (in )?([\w./-]+\.\w+)\n")
_FAILS = re.compile(r"^(error:|FAILED )", re.MULTILINE)
_TIMEOUT_S = 240


@dataclass(frozen=True)
class PageFile:
    """A file that the reader writes, or parts that they replace in it."""

    path: str
    text: str
    is_edit: bool = False


@dataclass(frozen=True)
class Command:
    """A command that the reader types, and the output that the page shows."""

    line: str
    shown: str


def steps(page: str) -> Iterator[PageFile | Command]:
    """What the reader does, in order."""
    for language, code in _FENCE.findall(page):
        if language == "console":
            yield from _commands(code)
        elif found := _FILE.match(code):
            yield PageFile(found[2], code, is_edit=bool(found[1]))


def _commands(block: str) -> Iterator[Command]:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        line, output = re.fullmatch(r"((?:[^\n]*\\\n)*[^\n]*)\n?(.*)", part, re.DOTALL).groups()  # type: ignore[union-attr]
        yield Command(line, output.strip())


def edited(text: str, edit: str) -> str:
    """A module with the parts of `edit` in place of its own. Raises LookupError where there is not one such part."""
    for part in ast.parse(edit).body:
        found = [node for node in ast.walk(ast.parse(text)) if _name_of(node) == _name_of(part)]
        if len(found) != 1:
            raise LookupError(f"the file has {len(found)} of {_name_of(part)}")
        lines, [old] = text.splitlines(keepends=True), found
        new = textwrap.indent("\n".join(edit.splitlines()[part.lineno - 1 : part.end_lineno]), " " * old.col_offset)
        text = "".join([*lines[: old.lineno - 1], new + "\n", *lines[old.end_lineno :]])
    return text


def _name_of(node: ast.AST) -> str | None:
    if isinstance(node, ast.ImportFrom):
        return f"from {node.module}"
    return node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else None


def matches(shown: str, got: str) -> bool:
    """Whether the output that a page shows is what a command printed."""
    pattern = re.escape(_stripped(shown)).replace(re.escape("\n...\n"), r"(?:\n.*)?\n").replace(re.escape("..."), ".*")
    return re.fullmatch(pattern, _stripped(got), re.DOTALL) is not None


def _stripped(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


class Reader:
    """Follows a page in a folder. The directory and the environment go from one command to the next."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder, self._state = folder / "work", folder / "state.sh"
        self._folder.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = str(probe.getsockname()[1])
        given = {**environment, "LLAMASTACK_URL": f"http://127.0.0.1:{self._port}"}
        exports = [f"export {name}={shlex.quote(value)}" for name, value in given.items()]
        self._state.write_text("\n".join([*exports, f"cd {shlex.quote(str(self._folder))}", ""]))
        self._server: subprocess.Popen[str] | None = None
        self._log = folder / "server.log"

    def follow(self, page: str) -> None:
        """Do all of it. Raises AssertionError with what was shown and what came."""
        for step in steps(page):
            if isinstance(step, PageFile):
                file = Path(self._run_in_shell("pwd").stdout.strip()) / step.path
                file.parent.mkdir(parents=True, exist_ok=True)
                text = edited(file.read_text(encoding="utf-8"), step.text) if step.is_edit else step.text
                file.write_text(self._here(text), encoding="utf-8")
            else:
                self._run(step)

    def _run(self, command: Command) -> None:
        line, shown = (self._here(text) for text in (command.line, command.shown))
        if line.startswith("llamastack run "):
            got = self._serve(line)
        else:
            done = self._run_in_shell(f"{{ {line}\n}} 2>&1")
            got = done.stdout
            assert (done.returncode != 0) == bool(_FAILS.search(shown)), f"$ {line}\nended {done.returncode}:\n{got}"
        print(f"$ {line}\n{got}")
        assert not shown or matches(shown, got), f"$ {line}\nThe page shows:\n{shown}\n\nIt printed:\n{got}"

    def _here(self, text: str) -> str:
        return text.replace(ADDRESS, f"127.0.0.1:{self._port}")

    def _run_in_shell(self, line: str) -> subprocess.CompletedProcess[str]:
        """The environment of a virtual environment that is activated, and the directory, stay for the next command."""
        keep = (
            f'_status=$?; {{ export -p; printf "cd %q\\n" "$PWD"; }} > {shlex.quote(str(self._state))}; exit $_status'
        )
        return subprocess.run(
            ["bash", "-c", f". {shlex.quote(str(self._state))}\n{line}\n{keep}"],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )

    def _serve(self, line: str) -> str:
        """Start the server and give its output so far, once it serves."""
        self.close()
        with self._log.open("w") as log:
            script = f". {shlex.quote(str(self._state))}\nexec {line} --port {self._port}"
            self._server = subprocess.Popen(["bash", "-c", script], stdout=log, stderr=subprocess.STDOUT, text=True)
        end = time.monotonic() + 60
        while "Serving on" not in (got := self._log.read_text()):
            assert self._server.poll() is None, f"$ {line}\n{got}"
            assert time.monotonic() < end, f"$ {line}\n{got}"
            time.sleep(0.05)
        return got

    def close(self) -> None:
        """Stop the server, as Ctrl-C does."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)
            try:
                self._server.wait(30)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait(30)
            self._server = None


@contextmanager
def reader(folder: Path, environment: Mapping[str, str], *, first_on_path: Path | None = None) -> Iterator[Reader]:
    """A reader whose server is stopped in the end. environment: beside what the tests have."""
    path = os.pathsep.join([*([] if first_on_path is None else [str(first_on_path)]), os.environ["PATH"]])
    found = Reader(folder, {"PATH": path, "LLAMASTACK_HOME": str(folder / "home"), **environment})
    try:
        yield found
    finally:
        found.close()
