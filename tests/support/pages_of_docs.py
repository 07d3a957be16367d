"""The pages of the documentation, and what tests read in them."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

from workspace_tools import tool

from llamastack_provider_openai.presets import PRESETS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
READMES = sorted((ROOT / "plugins").glob("*/*/README.md"))
PAGES = [
    *sorted(DOCS.glob("*.md")),
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "core" / "README.md",
    *READMES,
]
PYPROJECTS = [
    ROOT / "core" / "pyproject.toml",
    *sorted((ROOT / "plugins").glob("*/*/pyproject.toml")),
    ROOT / "provider_template" / "pyproject.toml",
]
PRESET_TYPES = {preset.provider_type for preset in PRESETS}
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
OWN_PACKAGE = re.compile(r"^llamastack($|-)")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """The part of a page below `## heading`, up to the next heading of that level."""
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def first_cells(text: str) -> list[str]:
    """The code in the first cells of the rows of every table."""
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


def code_blocks(text: str, language: str) -> list[str]:
    return [code for found, code in FENCE.findall(text) if found == language]


def generator() -> ModuleType:
    return tool("generate_docs")
