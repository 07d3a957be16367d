"""Virtual environments and wheels, made once per run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Venv:
    """A virtual environment with nothing of the workspace in it."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        self.bin = folder / "bin"
        self.python = self.bin / "python"

    def pip(self, *arguments: str) -> None:
        """Run pip; its output is shown when it fails."""
        done = subprocess.run(
            [str(self.python), "-m", "pip", "--disable-pip-version-check", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self, *command: str, check: bool = True, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, outside the workspace."""
        done = subprocess.run(
            [str(self.bin / command[0]), *command[1:]], capture_output=True, text=True, check=False, cwd=cwd
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done


@pytest.fixture(scope="session")
def make_venv(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Venv]:
    return lambda name: Venv(tmp_path_factory.mktemp(name) / "venv")


@pytest.fixture(scope="session")
def build_wheels(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[Path]], list[str]]:
    """Build the wheels of some project folders; gives their paths."""

    def build(projects: Sequence[Path]) -> list[str]:
        dist = tmp_path_factory.mktemp("dist")
        for project in projects:
            subprocess.run(
                [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(dist), str(project)],
                check=True,
                capture_output=True,
            )
        return sorted(str(wheel) for wheel in dist.glob("*.whl"))

    return build
