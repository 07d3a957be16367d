"""The blocks that show what `llamastack provider new` makes, from a real rendering."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir
from pathlib import Path

import click
import copier
import yaml
from click.testing import CliRunner
from read_source import excerpt, table

from llamastack_provider_template.new import TEMPLATE, provider

NAME = "acme"


@functools.cache
def variants() -> Mapping[str, str]:
    """What can be rendered, and the backend that each begins with."""
    questions = yaml.safe_load((TEMPLATE / "copier.yml").read_text(encoding="utf-8"))
    found: dict[str, str] = questions["variants"]["default"]
    return found


def answers(variant: str) -> dict[str, str]:
    """The answers that lead to a variant."""
    api, _, transport = variant.partition("-")
    return {"name": NAME, "api": api, "transport": transport}


@functools.cache
def files(variant: str) -> Mapping[str, str]:
    """The files of a rendered package by path."""
    with tempfile.TemporaryDirectory() as folder:
        worker = copier.run_copy(str(TEMPLATE), folder, data=answers(variant), defaults=True, quiet=True)
        if worker.answers.combined["variant"] != variant:
            raise ValueError(f"{answers(variant)} do not lead to {variant}")
        found = [file for file in Path(folder).rglob("*") if file.is_file()]
        return {str(file.relative_to(folder)): file.read_text(encoding="utf-8") for file in sorted(found)}


def rendered(arguments: str) -> str:
    """`VARIANT PATH`, with names as `source` has them: a file of a rendered package."""
    variant, path, *names = arguments.split(" ")
    return excerpt(path, files(variant)[path], names)


def rendered_tree(variant: str) -> str:
    """The files of a rendered package."""
    paths = sorted(files(variant), key=lambda path: (path.count("/") == 0, path))
    return "```text\n" + "\n".join(paths) + "\n```\n"


def variant_table(_: str) -> str:
    """The variants, and the options that name each."""

    def rows() -> Iterator[tuple[str, str, str]]:
        for variant, backend in variants().items():
            given = answers(variant)
            yield f"`--api {given['api']} --transport {given['transport']}`", given["api"], backend

    return table(("options", "API", "begins with"), rows())


def new_output(_: str) -> str:
    """What `llamastack provider new` prints."""
    arguments = ["new", "--name", NAME, "--defaults"]
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        done = CliRunner().invoke(provider, arguments, catch_exceptions=False)
    if done.exit_code:
        raise click.ClickException(done.output)
    return f"```console\n$ llamastack provider {' '.join(arguments)}\n{done.output.rstrip()}\n```\n"


BLOCKS: dict[str, Callable[[str], str]] = {
    "rendered": rendered,
    "rendered-tree": rendered_tree,
    "variants": variant_table,
    "new-output": new_output,
}
