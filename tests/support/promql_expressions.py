"""The expressions of the Grafana dashboard and of the rules of Prometheus."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from llamastack_metrics.commands import DASHBOARD, RULES


def rules() -> list[dict[str, Any]]:
    """The recording and alert rules."""
    return [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


def rule_expressions() -> list[str]:
    """The expressions of the rules."""
    return [rule["expr"] for rule in rules()]


def dashboard_expressions() -> list[str]:
    """The expressions of the panels and of the variables, with the variables of Grafana in them."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    variables = [
        re.sub(r"label_values\((.*), \w+\)", r"\1", variable["definition"])
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    ]
    return [*panels, *variables]
