"""The command `llamastack doctor`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import click

from llamastack.provider.commands import CliError, CommandOutput
from llamastack.stack import Stack
from llamastack_cli.doctor.config_checks import read_config
from llamastack_cli.doctor.provider_checks import ProviderChecks, stack_to_try
from llamastack_cli.doctor.report import Check, Outcome, show_report
from llamastack_cli.doctor.written_places import written_places

_WRONG_CONFIG = 2


@click.command()
@click.argument("file")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long each provider may take to start, and then for its call.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def doctor(output: CommandOutput, file: str, timeout_s: float, as_json: bool) -> None:
    """Check a run config (a file, or the name of an installed one): say what is wrong, and what to do.

    It reads the config, starts every provider in this process, and calls each once: one token of a model, a shield, a
    query. It registers, stores and changes nothing. Exit status: 0 if all is well, 1 if a check failed, 2 for a wrong
    config.
    """
    stack, checks = read_config(file)
    if stack is not None:
        checks += _try_providers(stack, timeout_s, output)
    failed = any(check.outcome is Outcome.FAIL for check in checks)
    exit_code = _WRONG_CONFIG if stack is None else int(failed)
    show_report(file, checks, exit_code, as_json=as_json)
    raise click.exceptions.Exit(exit_code)


def _try_providers(stack: Stack, timeout_s: float, output: CommandOutput) -> list[Check]:
    report = output.progress()
    checks: ProviderChecks | None = None
    with TemporaryDirectory(prefix="llamastack-doctor-") as folder, _quiet(), report.waiting():
        try:
            checks = ProviderChecks(stack_to_try(stack, Path(folder), report), timeout_s, written_places(stack))
            anyio.run(checks.run)
        except Exception as error:  # of the stack itself: what a provider raises is among its checks
            return [*(checks.found if checks else ()), *_failed_stack(stack, output.to_cli_error(error))]
    return checks.found


def _failed_stack(stack: Stack, error: CliError) -> list[Check]:
    """The error of the stack as a whole, one check for each line."""
    advice = f"`llamastack --debug run {stack.config.source}` shows where"
    return [
        Check(name="start", about="the stack", outcome=Outcome.FAIL, message=line, advice=advice)
        for line in error.lines
    ]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of the stack's log: the report has the same, also of a provider that fails to stop."""
    logger, handler = logging.getLogger("llamastack.stack"), logging.NullHandler()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
