"""`llamastack metrics`: what an operator gives Grafana and Prometheus."""

from __future__ import annotations

from pathlib import Path

import click

from llamastack.provider.commands import CommandOutput

_FOLDER = Path(__file__).parent
DASHBOARD = _FOLDER / "grafana" / "llamastack.json"
"""A dashboard to import into Grafana."""
RULES = _FOLDER / "prometheus" / "llamastack.rules.yml"
"""Recording and alert rules, for `rule_files` of Prometheus."""


@click.group()
def metrics() -> None:
    """Print the Grafana dashboard, or the rules for Prometheus."""


@metrics.command()
@click.pass_obj
def dashboard(output: CommandOutput) -> None:
    """Print the Grafana dashboard, as JSON to import."""
    output.say(DASHBOARD.read_text(encoding="utf-8").rstrip())


@metrics.command()
@click.pass_obj
def rules(output: CommandOutput) -> None:
    """Print the recording and alert rules, for `rule_files` of Prometheus."""
    output.say(RULES.read_text(encoding="utf-8").rstrip())
