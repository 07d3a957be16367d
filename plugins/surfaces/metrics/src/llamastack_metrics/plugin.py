"""The hooks of this package: its section of the run config, and the plugin of a stack that has metrics."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from llamastack.provider import hookimpl
from llamastack.provider.commands import CliCommand

if TYPE_CHECKING:
    from llamastack.api.definition import ApiDefinition
    from llamastack.provider.config_sections import ConfigSection
    from llamastack.stack.config import LoadedConfig
    from llamastack_metrics.cost_recorder import CostRecorder
    from llamastack_metrics.settings import MetricsConfig

SECTION = "metrics"


@hookimpl
def llamastack_check_apis(apis: Mapping[str, ApiDefinition], added: Mapping[str, str]) -> None:
    from llamastack.stack.discovery import DiscoveryError
    from llamastack_metrics.settings import MetricsConfig

    path = MetricsConfig().path  # a run config that changes it is not known yet
    for name in added:
        for method in apis[name].methods.values():
            if method.web.route == path and "GET" in method.web.methods:
                raise DiscoveryError(f"{name}.{method.name}: GET {path} is a route of llamastack-metrics")


@hookimpl
def llamastack_config_sections() -> Sequence[ConfigSection]:
    from llamastack.provider.config_sections import ConfigSection
    from llamastack_metrics.settings import MetricsConfig

    return [ConfigSection(SECTION, MetricsConfig, "Prometheus metrics")]


@hookimpl
def llamastack_cli_commands() -> Sequence[CliCommand]:
    line = "Print the Grafana dashboard, or the rules for Prometheus."
    return [CliCommand("metrics", line, "llamastack_metrics.commands:metrics")]


@hookimpl
def llamastack_stack_plugins(config: LoadedConfig) -> Sequence[object]:
    from llamastack_metrics.settings import MetricsConfig

    settings = config.section(SECTION, MetricsConfig)
    if not settings.enabled:
        return []
    from llamastack_metrics.recorder import Recorder
    from llamastack_metrics.stack_metrics import StackMetrics

    recorder = Recorder(settings)
    costs = _costs_of(config, settings)
    plugins: list[object] = [recorder, StackMetrics(settings, recorder, costs, config.folder)]
    return plugins if costs is None else [*plugins, costs]


def _costs_of(config: LoadedConfig, settings: MetricsConfig) -> CostRecorder | None:
    """None if nothing has a price: then each call is spared the look-up."""
    from llamastack_metrics.sources import TELEMETRY

    if find_spec(TELEMETRY) is None or not importlib.import_module(TELEMETRY).has_prices(config):
        return None
    from llamastack_metrics.cost_recorder import CostRecorder

    return CostRecorder(settings)
