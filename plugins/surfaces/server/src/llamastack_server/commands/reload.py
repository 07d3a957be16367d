"""`llamastack run --reload`: one process watches files and starts another that serves."""

from __future__ import annotations

import functools
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from uvicorn import Config
from uvicorn.supervisors.statreload import StatReload

from llamastack.provider.commands import CommandOutput
from llamastack.stack import Stack
from llamastack.stack.discovery import default_discovery
from llamastack_server.commands.run_stack import run_stack, set_up_log

_WATCHED = (".py", ".yaml", ".yml")
_PASSED_OVER = ("__pycache__", "node_modules", "site-packages")


def run_reloading(config: str, listening: socket.socket, output: CommandOutput, start_wait_s: float | None) -> None:
    """Serve in a process of its own, started again whenever a watched file changes."""
    settings = Config("llamastack", log_config=None, reload_delay=0.5)
    child = functools.partial(_child, config, output, start_wait_s)
    _Reloader(settings, child, [listening], watched_folders(config)).run()


def watched_folders(config: str) -> list[Path]:
    """The working folder, the folder of the config file, and those of packages with an editable installation."""
    found = {Path.cwd()}
    if Path(config).is_file():
        found.add(Path(config).resolve().parent)
    for package in {installed.value.partition(":")[0].partition(".")[0] for installed in default_discovery().installed}:
        spec = find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec is not None else ():
            if "site-packages" not in Path(place).parts:
                found.add(Path(place).resolve())
    return sorted(folder for folder in found if not any(folder != other and other in folder.parents for other in found))


class _Reloader(StatReload):
    """Reload by time stamps. uvicorn's own sees only Python files, and misses changes while a process starts."""

    def __init__(
        self, config: Config, target: Callable[..., None], sockets: list[socket.socket], folders: list[Path]
    ) -> None:
        self.folders = folders
        super().__init__(config, target, sockets)

    def startup(self) -> None:
        self.mtimes = self._written()
        super().startup()

    def restart(self) -> None:
        before = self._written()
        super().restart()
        self.mtimes = before

    def _written(self) -> dict[Path, float]:
        """When each file was last written."""
        found: dict[Path, float] = {}
        for file in self.iter_py_files():
            with suppress(OSError):  # the file was removed
                found[file] = file.stat().st_mtime
        return found

    def iter_py_files(self) -> Iterator[Path]:
        for top in self.folders:
            for folder, inside, files in os.walk(top):
                inside[:] = [name for name in inside if name not in _PASSED_OVER and not name.startswith(".")]
                yield from (Path(folder, name) for name in files if name.endswith(_WATCHED))


def _child(config: str, output: CommandOutput, start_wait_s: float | None, sockets: list[socket.socket]) -> None:
    try:
        set_up_log()
        report = output.progress()
        stack = Stack.from_config(config, on_progress=report)
        run_stack(stack, sockets[0], output, report, start_wait_s=start_wait_s)
    except Exception as error:
        # The fault may be in a file that is being edited: report it and wait for the next change.
        failed = output.to_cli_error(error)
        output.show_errors(failed.lines)
        sys.exit(failed.exit_code)
