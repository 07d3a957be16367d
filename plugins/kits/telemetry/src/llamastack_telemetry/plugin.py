"""The hooks: a stack with a provider of the telemetry API traces itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llamastack.provider import hookimpl
from llamastack.provider.commands import CliCommand

if TYPE_CHECKING:
    from llamastack.provider.config_sections import ConfigSection
    from llamastack.stack import Stack
    from llamastack.stack.config import LoadedConfig
    from llamastack_telemetry.sink_queue import PipelineCounts

__all__ = ["pipeline_counts"]

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
    from llamastack_telemetry.settings import TracingConfig

    return [ConfigSection("tracing", TracingConfig, "How the stack traces itself")]


@hookimpl
def llamastack_stack_plugins(config: LoadedConfig) -> Sequence[object]:
    from llamastack_telemetry.settings import TracingConfig

    settings = config.section("tracing", TracingConfig)
    served = config.run.apis is None or "telemetry" in config.run.apis
    if not (settings.enabled and served and config.run.providers.get("telemetry")):
        return []
    from llamastack_telemetry.tracing import Tracing

    return [Tracing(settings)]


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
