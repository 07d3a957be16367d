"""Distributions that exist as metadata only, written into a folder as pip would."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import importlib_metadata

from llamastack.stack.discovery import Discovery

EntryPoints = Mapping[str, Mapping[str, str]]


def install(folder: Path, name: str, entry_points: EntryPoints, version: str = "1.2.3") -> None:
    """Write `name`'s dist-info with `{group: {entry point name: value}}`."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nlong text\n")
    lines: list[str] = []
    for group, entries in entry_points.items():
        lines += [f"[{group}]", *(f"{entry} = {value}" for entry, value in entries.items()), ""]
    info.joinpath("entry_points.txt").write_text("\n".join(lines))


def entry_points_in(*folders: Path, real: bool = True) -> Callable[[], list[importlib_metadata.EntryPoint]]:
    """The entry points of the fakes in `folders`, and of what is really installed."""

    def read() -> list[importlib_metadata.EntryPoint]:
        found = list(importlib_metadata.entry_points()) if real else []
        for distribution in importlib_metadata.distributions(path=[str(folder) for folder in folders]):
            found += distribution.entry_points
        return found

    return read


SCRIPTED: EntryPoints = {
    "llamastack.providers.inference": {
        "scripted": "scripted_fake:SPEC",
        "no-tools": "scripted_fake:NO_TOOLS",
        "incomplete": "scripted_fake:INCOMPLETE",
        "no-sdk": "scripted_fake:NO_SDK",
        "future": "scripted_fake:FUTURE",
        "other-api": "scripted_fake:OTHER_API",
        "not-a-spec": "scripted_fake:NOT_A_SPEC",
        "gone": "package_that_is_gone:SPEC",
        "needs-memory": "scripted_fake:NEEDS_MEMORY",
    },
    "llamastack.providers.memory": {"needs-inference": "scripted_fake:NEEDS_INFERENCE"},
}


def scripted_discovery(folder: Path) -> Discovery:
    """What is really installed, and the scripted fakes."""
    install(folder, "llamastack-provider-scripted", SCRIPTED)
    return Discovery(entry_points_in(folder))


def install_package(folder: Path, package: Path) -> None:
    """Install the metadata of a real package, as its pyproject.toml has them; its code is imported from its source."""
    project = tomllib.loads(package.joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
    install(folder, project["name"], project["entry-points"], project["version"])
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    lines = ["Metadata-Version: 2.4", f"Name: {project['name']}", f"Version: {project['version']}"]
    lines += [f"Summary: {project['description']}", f"License-Expression: {project['license']}"]
    lines += [f"Requires-Python: {project['requires-python']}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in project["dependencies"]]
    readme = package.joinpath(project["readme"]).read_text(encoding="utf-8")
    info.joinpath("METADATA").write_text("\n".join([*lines, "", readme]), encoding="utf-8")


FILES_EXAMPLE = Path(__file__).parents[1] / "packages" / "llamastack-files-example"
"""A third party's package with an API of its own."""
