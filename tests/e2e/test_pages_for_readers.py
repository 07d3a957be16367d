"""The pages that lead a newcomer, step by step, each followed word for word in a new virtual environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from page_runner import reader
from projects import CORE, KITS, ROOT, SURFACES

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_the_tutorial(build_wheels: Callable[..., list[str]], tmp_path: Path) -> None:
    """From an empty folder, with pip as a reader has it."""
    wheels = build_wheels([CORE, *SURFACES, *KITS])
    environment = {"PIP_FIND_LINKS": str(Path(wheels[0]).parent), "PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    environment |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_COMPILE": "1"}
    with reader(tmp_path, environment) as found:
        found.follow(page("tutorial.md"))
