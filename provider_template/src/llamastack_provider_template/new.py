"""`llamastack provider new`: the package of a new provider."""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

TEMPLATE = Path(__file__).parent


@click.group()
def provider() -> None:
    """Write a provider."""


@provider.command()
@click.argument("dest", required=False, type=click.Path(path_type=Path))
@click.option("--name", help="Name of the provider, such as acme.")
@click.option("--api", help="API that it implements: inference, safety, memory ...")
@click.option("--transport", help="How it reaches what does the work: openai, rest, sql, sdk, in-process.")
@click.option("--auth", help="The key that the service wants: none, bearer, header, per-request.")
@click.option("--description", help="What it does, in one line.")
@click.option("--author", help="Author of the package.")
@click.option("--defaults", is_flag=True, help="Ask nothing; use the defaults for missing options.")
@click.option("--force", is_flag=True, help="Write although the folder is not empty, or the type is installed.")
def new(dest: Path | None, defaults: bool, force: bool, **options: Any) -> None:
    """Make the package of a new provider. It works at once.

    DEST is the folder to make, by default llamastack-provider-NAME. The command asks for each missing option.
    """
    if dest is not None:
        _require_room(dest, force)
    given = {name: value for name, value in options.items() if value is not None}
    with tempfile.TemporaryDirectory(prefix="llamastack-provider-") as folder:
        rendered = Path(folder) / "rendered"
        answers = _render(
            _template(Path(folder)), rendered, given, asks=sys.stdin.isatty() and not defaults, defaults=defaults
        )
        if not force:
            _require_new_type(answers)
        if dest is None:
            dest = Path(answers["distribution"])
            _require_room(dest, force)
        _put(rendered, dest)
    click.echo(_next_steps(dest, answers))


def _require_room(dest: Path, force: bool) -> None:
    if dest.exists() and not dest.is_dir():
        raise click.UsageError(f"{dest} already exists and is not a folder")
    if not force and dest.exists() and any(dest.iterdir()):
        raise click.UsageError(f"{dest} already exists and is not empty; --force writes into it anyway")


def _require_new_type(answers: Mapping[str, Any]) -> None:
    """Raises UsageError if the provider type, or a package of this name, is installed: two would exclude each other."""
    from llamastack.stack.discovery import default_discovery

    named, kind = answers["name"], answers["provider_type"]
    for installed in default_discovery().providers(answers["api"]):
        if installed.name == kind:
            raise click.UsageError(
                f"--name: the provider type '{kind}' of API '{answers['api']}' is already installed, by "
                f"{installed.origin}; choose another name than '{named}', or --force"
            )
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        version = importlib.metadata.version(answers["distribution"])
        raise click.UsageError(
            f"--name: a package {answers['distribution']} is already installed ({version}); choose another name than "
            f"'{named}', or --force"
        )


def _template(scratch: Path) -> Path:
    """The template, with the variants that installed packages add to it."""
    from llamastack_provider_template.added_variants import added_variants, complete_template

    added = {variant.name: variant for variant in added_variants()}
    return complete_template(TEMPLATE, added, scratch / "template") if added else TEMPLATE


def _render(
    template: Path, rendered: Path, given: Mapping[str, Any], *, asks: bool, defaults: bool
) -> Mapping[str, Any]:
    """Render into a new folder and return all answers. Raises UsageError for invalid answers."""
    import copier
    from copier.errors import CopierAnswersInterrupt, CopierError

    try:
        worker = copier.run_copy(str(template), rendered, data=dict(given), defaults=not asks, quiet=True)
    except CopierAnswersInterrupt as error:
        raise click.Abort from error
    except (ValueError, CopierError) as error:
        raise click.UsageError(_reworded(str(error))) from error
    answers = worker.answers.combined
    open_questions = [name for name in worker.answers.user if name not in given and name not in worker.answers.hidden]
    if open_questions and not asks and not defaults:
        raise click.UsageError(_missing(open_questions))
    return answers


def _missing(names: Sequence[str]) -> str:
    wanted = ", ".join(f"--{name}" for name in names)
    return f"there is no terminal to ask on: give {wanted}, or --defaults"


def _reworded(message: str) -> str:
    """Copier's message for an invalid answer, with the option in front."""
    required = re.fullmatch(r'Question "(\w+)" is required', message)
    if required:
        return f"--{required[1]} is missing"
    found = re.fullmatch(r"(?:Validation error for question|Invalid choice for) '(\w+)': (.*)", message, re.DOTALL)
    return f"--{found[1]}: {' '.join(found[2].split())}" if found else message


def _put(rendered: Path, dest: Path) -> None:
    """Copy the rendered package to its place. If that fails, a new folder is removed again."""
    is_new = not dest.exists()
    try:
        shutil.copytree(rendered, dest, dirs_exist_ok=True)
    except BaseException:
        if is_new:
            shutil.rmtree(dest, ignore_errors=True)
        raise


def _next_steps(dest: Path, answers: Mapping[str, Any]) -> str:
    backend = answers["variants"][answers["variant"]]
    return f"""\
{dest}: {answers["api"]} provider {answers["provider_type"]}, which begins with {backend}.

Next:
  cd {dest}
  python -m venv .venv && . .venv/bin/activate
  pip install -e '.[dev]'
  pytest
  llamastack providers config-table {answers["provider_type"]} --write README.md
  llamastack run run.yaml

Its README.md says how to start its backend, and how to publish it."""
