"""`llamastack config`: check run configs without starting anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from llamastack_cli.output import say, show_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llamastack.stack import Stack
    from llamastack.stack.yaml_source import ConfigIssue


@click.group()
def config() -> None:
    """Check run configs."""


@config.command()
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def validate(file: str, as_json: bool) -> None:
    """Check a run config (a file, or the name of an installed one) against what is installed.

    Exit status 0: it is valid; 2: it is not. If the config class of a provider cannot be loaded, because a package is
    missing, its config cannot be checked. That is a warning, and the exit status is still 0: `llamastack run`
    starts the stack, and this provider is down.
    """
    from llamastack.stack import ConfigError, Stack

    try:
        stack = Stack.from_config(file)
        stack.check_sections()
    except ConfigError as error:
        if not as_json:
            raise
        show_json({"valid": False, "file": file, "errors": _as_json(error.faults)})
        raise click.exceptions.Exit(2) from None
    warnings = _not_checked(stack)
    if as_json:
        show_json({"valid": True, "file": file, "providers": _providers(stack), "warnings": _as_json(warnings)})
        return
    for line in str(ConfigError(stack.config.source, warnings)).splitlines() if warnings else ():
        say(f"warning: {line}", err=True)
    named = "; ".join(f"{api}: {', '.join(ids)}" for api, ids in _providers(stack).items())
    count = sum(len(ids) for ids in _providers(stack).values())
    say(f"{file} is valid: {count} {'provider' if count == 1 else 'providers'}{f' ({named})' if named else ''}")


def _providers(stack: Stack) -> dict[str, list[str]]:
    run = stack.config.run
    return {
        api: [provider.provider_id for provider in providers]
        for api, providers in run.providers.items()
        if run.apis is None or api in run.apis
    }


def _not_checked(stack: Stack) -> list[ConfigIssue]:
    """The providers whose config could not be checked, because its class cannot be loaded."""
    plans = [instance.plan for instances in stack.instances.values() for instance in instances]
    return [
        stack.config.fault(
            (*plan.path, "config"),
            f"not checked, because {plan.spec.config_class} cannot be loaded: "
            f"{type(plan.config).__name__}: {plan.config}",
        )
        for plan in plans
        if isinstance(plan.config, Exception)
    ]


def _as_json(issues: Iterable[ConfigIssue]) -> list[dict[str, object]]:
    from llamastack.provider.validation_paths import path_of

    return [{"line": issue.line, "path": path_of(issue.path), "message": issue.message} for issue in issues]


@config.command()
def schema() -> None:
    """Print the JSON Schema of run configs."""
    from llamastack.stack.config import run_config_model
    from llamastack_cli.server_connection import installed_plugins

    hooks = installed_plugins()
    model = run_config_model(hooks.apis(), hooks.config_sections())
    show_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()})
