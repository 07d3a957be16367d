"""The pages that lead a newcomer, step by step, each followed word for word with built wheels."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from page_runner import reader
from projects import CORE, EXAMPLES, KITS, ROOT, SURFACES, provider

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def settings_of_pip(wheels: list[str]) -> dict[str, str]:
    """Where pip finds our packages, and which versions of all others it takes."""
    return {
        "PIP_FIND_LINKS": str(Path(wheels[0]).parent),
        "PIP_CONSTRAINT": str(ROOT / "constraints.txt"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_COMPILE": "1",
    }


def test_the_tutorial(build_wheels: Callable[..., list[str]], tmp_path: Path) -> None:
    """From an empty folder: the page makes its virtual environment itself."""
    wheels = build_wheels([CORE, *SURFACES, *KITS])
    with reader(tmp_path, settings_of_pip(wheels)) as found:
        found.follow(page("tutorial.md"))


def test_add_an_api(
    build_wheels: Callable[..., list[str]], make_venv: Callable[..., Any], server_venv: Any, tmp_path: Path
) -> None:
    """In a new environment. What the page shows of the packages in `examples/` is their source."""
    wheels = build_wheels([CORE, *SURFACES, *KITS, provider("remote"), ROOT / "provider_template", *EXAMPLES])
    venv = make_venv("reader", server_venv)
    pip = venv.bin / "pip"
    pip.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pip --python "{venv.python}" "$@"\n')
    pip.chmod(0o755)
    environment = {**settings_of_pip(wheels), "VIRTUAL_ENV": str(venv.bin.parent)}
    with reader(tmp_path, environment, first_on_path=venv.bin) as found:
        found.follow(page("apis.md"))
