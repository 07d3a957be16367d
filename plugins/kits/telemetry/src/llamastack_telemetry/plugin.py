"""The hooks: a stack with a provider of the telemetry API traces itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llamastack.provider import hookimpl
from llamastack.provider.commands import CliCommand

if TYPE_CHECKING:
    from llamastack.provider.config_sections import ConfigSection
    from llamastack.stack import Stack
    from llamastack.stack.config import LoadedConfig
    from llamastack_telemetry.content_capture import ContentCapture
    from llamastack_telemetry.price_list import PriceList
    from llamastack_telemetry.settings import TracingConfig
    from llamastack_telemetry.sink_queue import PipelineCounts

__all__ = ["has_prices", "pipeline_counts", "prices_of"]

_PRICES = "prices"

_GROUP = "traces"
_COMMANDS = (
    ("list", "list_traces", "List traces, the newest first."),
    ("show", "show_trace", "Draw a trace: its spans as a tree, and where in its time each lies."),
    ("tail", "tail_traces", "Show traces as they finish."),
)
_MODULE = "llamastack_telemetry.commands"


@hookimpl
def llamastack_config_sections() -> Sequence[ConfigSection]:
    from llamastack.provider.config_sections import ConfigSection
    from llamastack_telemetry.price_settings import PricesConfig
    from llamastack_telemetry.settings import TracingConfig

    return [
        ConfigSection("tracing", TracingConfig, "How the stack traces itself"),
        ConfigSection(_PRICES, PricesConfig, "What calls of models cost"),
    ]


@hookimpl
def llamastack_stack_plugins(config: LoadedConfig) -> Sequence[object]:
    from llamastack_telemetry.settings import TracingConfig

    prices = _made_from(config)
    plugins: list[object] = []
    if prices is not None:
        from llamastack_telemetry.cost_header import CostHeader

        plugins += [prices, CostHeader(prices)]
    settings = config.section("tracing", TracingConfig)
    served = config.run.apis is None or "telemetry" in config.run.apis
    if settings.enabled and served and config.run.providers.get("telemetry"):
        from llamastack_telemetry.tracing import Tracing

        capture = _capture_of(settings)
        ignored = [*settings.ignored_paths, *_path_of_metrics(config)]
        settings = settings.model_copy(update={"ignored_paths": ignored})
        plugins += [Tracing(settings, prices, capture), *([] if capture is None else [capture])]
    return plugins


def _path_of_metrics(config: LoadedConfig) -> Sequence[str]:
    """Where scrapes go, if the run config says so. The section is read as it is written: its package may be missing."""
    section = config.value.get("metrics")
    path = section.get("path") if isinstance(section, Mapping) else None
    return [path] if isinstance(path, str) else []


def _capture_of(settings: TracingConfig) -> ContentCapture | None:
    if not settings.has_content:
        return None
    from llamastack_telemetry.content_capture import ContentCapture

    return ContentCapture()


def _made_from(config: LoadedConfig) -> PriceList | None:
    if not has_prices(config):
        return None
    from llamastack_telemetry.price_list import PriceList

    return PriceList(config)


def has_prices(config: LoadedConfig) -> bool:
    """Whether calls of a stack with this run config have a cost: it has the key `prices`, or a model with prices."""
    return _PRICES in config.value or any(_PRICES in model.metadata for model in config.objects("models"))


def prices_of(stack: Stack) -> PriceList | None:
    """What the calls of a stack cost: `prices_of(stack).cost_of(event)`. None if its run config has no prices."""
    from llamastack_telemetry.price_list import PriceList

    found = [plugin for plugin in stack.hooks.manager.get_plugins() if isinstance(plugin, PriceList)]
    return found[0] if found else None


def pipeline_counts(stack: Stack) -> PipelineCounts | None:
    """What became of the spans of a stack in this process; None if it does not trace itself."""
    from llamastack_telemetry.tracing import Tracing

    found = [plugin for plugin in stack.hooks.manager.get_plugins() if isinstance(plugin, Tracing)]
    return found[0].counts() if found else None


@hookimpl
def llamastack_cli_commands() -> Sequence[CliCommand]:
    return [
        CliCommand(_GROUP, "Show the traces of a running server.", f"{_MODULE}:{_GROUP}"),
        *(
            CliCommand(name, line, f"{_MODULE}:{function}", group=_GROUP, connects=True)
            for name, function, line in _COMMANDS
        ),
    ]
