"""Virtual environments and wheels, made once per run."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from projects import ROOT, SERVER

# Beside what the tests run in, so that it goes with it.
KEPT = Path(sys.prefix) / "kept-by-tests"
# Python compiles what is imported. A copy of the environment gets that, too.
COMPILED = """
import importlib, pkgutil
for name in ("llamastack", "llamastack_cli", "llamastack_server", "llamastack_openai_api"):
    for module in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""


class Venv:
    """A virtual environment with nothing of the workspace in it, not even pip: that of the workspace serves all."""

    def __init__(self, folder: Path, like: Venv | None = None) -> None:
        """like: one that it begins with a copy of; its files are linked, not written again. One that is there stays."""
        self.bin = folder / "bin"
        self.python = self.bin / "python"
        if folder.exists():
            return
        if like is None:
            _run(sys.executable, "-m", "venv", "--without-pip", folder)
        else:
            shutil.copytree(like.bin.parent, folder, symlinks=True, copy_function=os.link)
            for script in (script for script in self.bin.iterdir() if not script.is_symlink()):
                text = script.read_bytes().replace(bytes(like.bin), bytes(self.bin))
                script.unlink()  # it is a link
                script.write_bytes(text)
                script.chmod(0o755)

    def pip(self, *arguments: str) -> str:
        """Run pip and return what it prints; all its output is shown when it fails."""
        return _run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", self.python, *arguments)

    def install(self, *arguments: str) -> None:
        """Run `pip install`. Python compiles a module when it is first imported; most modules never are."""
        self.pip("install", "--quiet", "--no-compile", *arguments)

    def run(self, *command: str, check: bool = True, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, outside the workspace."""
        done = subprocess.run(
            [str(self.bin / command[0]), *command[1:]], capture_output=True, text=True, check=False, cwd=cwd
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done


def kept(lock: Path, make: Callable[[Path], None]) -> Path:
    """A folder that `make` has filled as `lock` says: made once for each content of that file, then kept.

    Processes that want it at the same time wait for the first of them.
    """
    digest = hashlib.sha256(f"{sys.version} {lock.read_text()}".encode()).hexdigest()
    folder = KEPT / f"{lock.stem}-{digest[:16]}"
    complete = folder / ".complete"
    KEPT.mkdir(exist_ok=True)
    with _locked(folder.with_suffix(".locked")):
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            complete.touch()
    return folder


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One process at a time."""
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def locked_python() -> Callable[[Path], Path]:
    """The `python` of an environment with exactly what a lock file (`pip freeze`) names, kept for the next run."""

    def make(folder: Path, lock: Path) -> None:
        _run(sys.executable, "-m", "venv", "--without-pip", folder)
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", folder / "bin" / "python")
        # Most of it is never imported; what is, Python compiles then.
        _run(*pip, "install", "--quiet", "--no-deps", "--no-compile", "-r", lock)

    return lambda lock: kept(lock, lambda folder: make(folder, lock)) / "bin" / "python"


@pytest.fixture(scope="session")
def locked_node_modules() -> Callable[[Path], Path]:
    """`node_modules` as a package-lock.json has it, kept for the next run."""

    def make(folder: Path, lock: Path) -> None:
        folder.mkdir()
        for name in (lock, lock.with_name("package.json")):
            shutil.copy(name, folder)
        _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)

    return lambda lock: kept(lock, lambda folder: make(folder, lock)) / "node_modules"


@pytest.fixture(scope="session")
def of_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the workers of a run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def make_venv(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Venv]:
    return lambda name, like=None: Venv(tmp_path_factory.mktemp(name) / "venv", like)


@pytest.fixture(scope="session")
def build_wheels(of_run: Path) -> Callable[[Sequence[Path]], list[str]]:
    """Build the wheels of some project folders; gives their paths, all in one folder. Each is built once per run."""
    dist = of_run / "dist"
    dist.mkdir(exist_ok=True)

    def wheel_of(project: Path) -> str:
        fresh = of_run / hashlib.sha256(str(project).encode()).hexdigest()[:16]
        with _locked(fresh.with_suffix(".locked")):
            if not fresh.exists():
                _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", fresh, cwd=project)
                for wheel in fresh.iterdir():
                    (dist / wheel.name).hardlink_to(wheel)
            [built] = fresh.iterdir()
        return str(dist / built.name)

    return lambda projects: sorted(map(wheel_of, projects))


@pytest.fixture(scope="session")
def server_venv(of_run: Path, build_wheels: Callable[[Sequence[Path]], list[str]]) -> Venv:
    """An environment with `llamastack[server]` from its wheels, made once per run: others begin with a copy of it."""
    core, *_ = build_wheels(SERVER)
    folder = of_run / "server"
    with _locked(folder.with_suffix(".locked")):
        made = folder.exists()
        venv = Venv(folder)
        if not made:
            venv.install("-c", str(ROOT / "constraints.txt"), "--find-links", str(Path(core).parent), f"{core}[server]")
            venv.run("python", "-c", COMPILED)
        return venv
