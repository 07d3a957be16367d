"""Variants of the template that other packages bring: the first provider of an API that such a package adds.

An entry point of the group `llamastack.provider_templates` has the name of the variant, `<api>-<transport>`, and names
a Python package: a folder with the variant's files, as in `variants/`. The first line of its docstring says what a
provider begins with.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import click
import yaml

from llamastack.stack.discovery import DiscoveryError, Installed, default_discovery

GROUP = "llamastack.provider_templates"
_TRANSPORTS = ("openai", "rest", "sql", "sdk", "in-process")
_FILES = ("config.py", "conformance.yaml", "facts", "provider.py", "providers.yaml")


@dataclass(frozen=True, slots=True)
class AddedVariant:
    """A variant of another package.

    name: `<api>-<transport>`. begins_with: what its first backend is, in a few words. folder: of its files.
    """

    name: str
    begins_with: str
    folder: Path


def added_variants() -> Iterator[AddedVariant]:
    """The variants of installed packages. A variant that cannot be used is left out, with a warning that says why."""
    for installed in default_discovery().group(GROUP):
        if installed.disabled:
            continue
        try:
            yield _variant(installed)
        except (DiscoveryError, ValueError) as error:
            click.echo(f"warning: template variant left out: {error}", err=True)


def _variant(installed: Installed) -> AddedVariant:
    """Raises DiscoveryError if it cannot be imported, ValueError for what is no variant."""
    where = f"'{installed.name}' ({installed.origin}, entry point {installed.value})"
    if installed.name.partition("-")[2] not in _TRANSPORTS:
        allowed = ", ".join(f"<api>-{transport}" for transport in _TRANSPORTS)
        raise ValueError(f"{where}: the name must be one of {allowed}")
    found = installed.load()
    if not isinstance(found, ModuleType) or found.__file__ is None or not found.__doc__:
        raise ValueError(f"{where} is not a package with a docstring")
    folder = Path(found.__file__).parent
    missing = [f"{name}.jinja" for name in _FILES if not (folder / f"{name}.jinja").is_file()]
    if missing:
        raise ValueError(f"{where}: {folder} has no {', '.join(missing)}")
    first_line = found.__doc__.strip().splitlines()[0].rstrip(".")
    begins_with = first_line if first_line[1:2].isupper() else first_line[:1].lower() + first_line[1:]
    return AddedVariant(installed.name, begins_with, folder)


def complete_template(template: Path, added: Mapping[str, AddedVariant], target: Path) -> Path:
    """A copy of the template in the new folder `target`, with the variants `added` in it. Raises OSError."""
    shutil.copytree(template, target, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for name, variant in added.items():
        shutil.copytree(
            variant.folder, target / "variants" / name, ignore=shutil.ignore_patterns("*.py", "__pycache__")
        )
    file = target / "copier.yml"
    questions = yaml.safe_load(file.read_text(encoding="utf-8"))
    questions["variants"]["default"] |= {name: variant.begins_with for name, variant in added.items()}
    file.write_text(yaml.safe_dump(questions, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return target
