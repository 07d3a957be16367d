"""The package that docs/apis.md shows, as files."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "apis.md").read_text(encoding="utf-8")


def block_of_page(language: str, begins: str) -> str:
    """The one block of this language that begins so."""
    [found] = [code for code in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if code.startswith(begins)]
    return str(found)


def write_package(folder: Path) -> Path:
    """Write every file of the page whose block begins with its name; gives `folder` back."""
    for name, code in re.findall(r"```(?:toml|python)\n# (\S+\.\w+)\n(.*?)```", PAGE, re.DOTALL):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code, encoding="utf-8")
    (folder / "README.md").write_text("# Recordings\n", encoding="utf-8")
    (folder / "src" / "llamastack_recordings" / "py.typed").touch()
    return folder
