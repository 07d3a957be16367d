"""The Grafana dashboard and the rules name what is there, and are of the form that their programs read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from promql_expressions import dashboard_expressions, rule_expressions, rules

from llamastack.provider import errors
from llamastack.provider.errors import (
    AuthenticationError,
    LlamaStackError,
    NotSupportedError,
    PermissionDeniedError,
    RateLimitError,
)
from llamastack_cli.group import cli
from llamastack_metrics.commands import DASHBOARD, RULES
from llamastack_metrics.definitions import METRICS, Kind

TESTS_OF_RULES = Path(__file__).with_name("llamastack.rules.test.yml")
SERIES = {
    name: metric.labels
    for metric in METRICS
    for name in (
        [f"{metric.name}{ending}" for ending in ("_bucket", "_count", "_sum")]
        if metric.kind is Kind.histogram
        else [f"{metric.name}_total" if metric.kind is Kind.counter else metric.name]
    )
}
OF_PROMETHEUS = {"job", "instance", "le"}
WORDS = {"by", "and", "on", "le", "sum", "min", "max", "rate", "increase", "histogram_quantile", "min_over_time"}


def names_in(expression: str) -> Iterator[tuple[str, set[str]]]:
    """(series, labels in its braces) of each series that an expression reads."""
    text = re.sub(r"\b(by|on) *\([^)]*\)", "", expression)
    for name, braces in re.findall(r"([a-zA-Z_:][\w:]*)(?:\{([^}]*)\})?(?!\w*\()", re.sub(r"\[[^]]*\]", "", text)):
        if name not in WORDS:
            yield name, set(re.findall(r"(\w+) *(?:=|!)", braces))


def labels_that_stay(expression: str) -> set[str]:
    return {
        label for group in re.findall(r"\b(?:by|on) *\(([^)]*)\)", expression) for label in re.split(r"[, ]+", group)
    }


def assert_known(expression: str, series: dict[str, tuple[str, ...]]) -> None:
    found = [*names_in(expression)]
    assert found, expression
    allowed: set[str] = set(OF_PROMETHEUS)
    for name, labels in found:
        assert name in series, f"{name} in {expression}"
        assert labels <= {*series[name], *OF_PROMETHEUS}, expression
        allowed |= {*series[name]}
    assert labels_that_stay(expression) <= allowed, expression


def test_expressions_of_the_rules_name_what_there_is() -> None:
    recorded = {rule["record"]: tuple(sorted(labels_that_stay(rule["expr"]))) for rule in rules() if "record" in rule}
    assert len(recorded) >= 5
    for rule in rules():
        assert_known(rule["expr"], {**SERIES, **recorded})


def test_alerts_say_what_is_wrong() -> None:
    alerts = {rule["alert"]: rule for rule in rules() if "alert" in rule}
    assert {*alerts} >= {
        "LlamastackProviderDown",
        "LlamastackHttpErrors",
        "LlamastackProviderErrors",
        "LlamastackSlowFirstToken",
        "LlamastackSpansDropped",
        "LlamastackStuckStreams",
    }
    for rule in alerts.values():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert {*rule["annotations"]} == {"summary", "description"}
        assert "absent" not in rule["expr"]


def test_the_dashboard_has_the_structure_that_grafana_reads() -> None:
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    assert dashboard["schemaVersion"] >= 39
    assert dashboard["uid"] == "llamastack"
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["type"] in ("timeseries", "stat")
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
        for target in panel["targets"]:
            used = {*re.findall(r"\$(\w+)", target["expr"])} - {"__rate_interval"}
            assert used <= variables, target["expr"]


def test_expressions_of_the_dashboard_name_what_there_is() -> None:
    expressions = dashboard_expressions()
    assert len(expressions) > 20
    for expression in expressions:
        assert_known(expression, SERIES)


def test_failed_calls_are_those_that_no_client_is_at_fault_for() -> None:
    family = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LlamaStackError)]
    # These say that the key of the backend is wrong, or that the backend takes no more.
    of_the_backend = {AuthenticationError, PermissionDeniedError, RateLimitError}
    of_clients = {kind.code for kind in family if kind.status < 500 and kind not in of_the_backend}
    wanted = {"ok", "cancelled", NotSupportedError.code} | of_clients
    expressions = [*rule_expressions(), *dashboard_expressions()]
    found = [names for text in expressions for names in re.findall(r'status!~"([^"]*)"', text)]
    assert len(found) == 3
    for names in found:
        assert set(names.split("|")) == wanted


def test_every_metric_of_ours_is_on_the_dashboard() -> None:
    shown = " ".join(dashboard_expressions())
    assert [metric.name for metric in METRICS if metric.name not in shown and metric.name.startswith("llama")] == []


def test_the_commands_print_them() -> None:
    for command, file in (("dashboard", DASHBOARD), ("rules", RULES)):
        done = CliRunner().invoke(cli, ["metrics", command])
        assert done.exit_code == 0, done.output
        assert done.stdout == file.read_text(encoding="utf-8")


def test_a_made_up_metric_is_seen() -> None:
    with pytest.raises(AssertionError):
        assert_known("sum(rate(llamastack_nothing_total[5m]))", SERIES)
    with pytest.raises(AssertionError):
        assert_known('llamastack_provider_healthy{model="m"}', SERIES)
    with pytest.raises(AssertionError):
        assert_known("sum by (route) (llamastack_open_streams)", SERIES)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: apt-get install prometheus")
def test_prometheus_takes_the_rules_and_their_tests(tmp_path: Path) -> None:
    tests = tmp_path / "tests.yml"
    tests.write_text(TESTS_OF_RULES.read_text().replace("[RULES]", f"['{RULES}']"))
    assert {rule["alert"] for rule in rules() if "alert" in rule} == {
        test["alertname"] for group in yaml.safe_load(tests.read_text())["tests"] for test in group["alert_rule_test"]
    }
    for command in (["check", "rules", str(RULES)], ["test", "rules", str(tests)]):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
