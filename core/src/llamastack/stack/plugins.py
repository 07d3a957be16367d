"""Loads the installed plugins one by one, so that a broken plugin has a name and stops no other plugin."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pluggy

from llamastack.provider import hookspecs
from llamastack.provider.import_path import load_dotted
from llamastack.stack.discovery import (
    DISABLE_VARIABLE,
    REQUIRED_PLUGIN_GROUP,
    Discovery,
    DiscoveryError,
    Installed,
)
from llamastack.stack.hook_calls import (
    BeginSpan,
    Implementation,
    OnFailure,
    ask_first,
    call_all,
    check_hooks,
    implementations,
    leave_out,
    log_failure,
    reraise,
    stop_start,
    tell_all,
)

if TYPE_CHECKING:
    from llamastack.api.definition import ApiDefinition
    from llamastack.provider.config_sections import ConfigSection

_LOGGER = logging.getLogger("llamastack.plugins")
TRACE_VARIABLE = "LLAMASTACK_TRACE_HOOKS"
_GIVEN = {
    "llamastack_apis": "llamastack.api.definition:ApiDefinition",
    "llamastack_cli_commands": "llamastack.provider.commands:CliCommand",
    "llamastack_config_sections": "llamastack.provider.config_sections:ConfigSection",
    "llamastack_middleware": "llamastack.provider.routes:Middleware",
    "llamastack_routes": "llamastack.provider.routes:RouteGroup",
    "llamastack_stack_lifespan": "contextlib:AbstractAsyncContextManager",
    "llamastack_stack_plugins": "builtins:object",
}
"""What plugins give, each in a list or alone; imported when it is collected."""
_ACCESS_HOOKS = ("llamastack_authenticate", "llamastack_authorize")


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin that could not be loaded, and why. required: whether the stack must not start without it."""

    installed: Installed
    cause: str
    required: bool = False


def _check_group(installed: Installed, access: list[str]) -> None:
    # If a plugin in another group did not load, nobody would know that it controls access.
    if access and installed.group != REQUIRED_PLUGIN_GROUP:
        raise DiscoveryError(
            f"'{installed.name}' ({installed.origin}) has {access[0]}, so its entry point must be in the group "
            f"'{REQUIRED_PLUGIN_GROUP}': no stack may start without it"
        )


def _check_ids(api: ApiDefinition, plugin: str) -> None:
    from llamastack.api.id_fields import id_faults

    faults = [f"{api.name}.{name}: {fault}" for name, method in api.methods.items() for fault in id_faults(api, method)]
    if faults:
        raise DiscoveryError("\n  ".join((f"plugin {plugin} adds an API whose ids cannot be routed:", *faults)))


class Plugins:
    """The loaded plugins, and calls of their hooks."""

    def __init__(self, discovery: Discovery) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.broken: list[BrokenPlugin] = []
        self._traced = os.environ.get(TRACE_VARIABLE) == "1"
        for installed in discovery.plugins():
            if not installed.disabled:
                self._load(installed)
            elif installed.group == REQUIRED_PLUGIN_GROUP:
                _LOGGER.warning("the required plugin '%s' is disabled by %s", installed.name, DISABLE_VARIABLE)

    def _load(self, installed: Installed) -> None:
        name = f"{installed.package}:{installed.name}"
        required = installed.group == REQUIRED_PLUGIN_GROUP
        try:
            plugin = installed.load()
            # Read from the plugin, not from pluggy, which refuses a plugin with a hook that it does not know.
            required = required or any(hasattr(plugin, hook) for hook in _ACCESS_HOOKS)
            self.manager.register(plugin, name=name)
            check_hooks(self.manager, plugin, name)
            access = [each.name for each in self.manager.get_hookcallers(plugin) or () if each.name in _ACCESS_HOOKS]
            required = required or bool(access)
            _check_group(installed, access)
        except (DiscoveryError, pluggy.PluginValidationError, ValueError) as error:
            if self.manager.has_plugin(name):
                self.manager.unregister(name=name)
            cause = str(error).replace("\n", "; ")
            self.broken.append(BrokenPlugin(installed, cause, required))
            _LOGGER.warning("plugin left out: %s", cause)

    def check_required(self) -> None:
        """Raises DiscoveryError where a plugin is broken that the stack must not start without."""
        for broken in self.broken:
            if broken.required:
                raise DiscoveryError(f"a required plugin cannot be used: {broken.cause}")

    def implementations(self, hook: str) -> list[Implementation]:
        """The implementations of a hook, in the order in which they are called."""
        return implementations(self.manager, hook)

    def collect(self, hook: str, *arguments: object, required: bool = False) -> list[tuple[str, Any]]:
        """(plugin, thing) for each thing that the plugins return, in pluggy's order. A plugin that fails is left out.

        required: raises PluginError for a plugin that fails.
        """
        failed, kind = stop_start if required else leave_out, load_dotted(_GIVEN[hook])
        found = []
        for plugin, thing in self._caller(hook, failed)(*arguments):
            if isinstance(thing, kind):
                found.append((plugin, thing))
            else:
                failed(plugin, hook, TypeError(f"it gives a {type(thing).__name__}; allowed: {kind.__name__}"))
        return found

    def notify(self, hook: str, *arguments: object) -> None:
        """Tell the plugins that implement `hook`. A failure is logged, and the next plugin is called."""
        self._caller(hook, log_failure)(*arguments)

    def listener(self, hook: str) -> Callable[..., object] | None:
        """`notify` for one hook; None if no plugin implements it."""
        return self._caller(hook, log_failure) if self.implementations(hook) else None

    def begin_span(self) -> BeginSpan | None:
        """Asks the plugins for a span, until one makes it; None if no plugin makes spans."""
        called = self.implementations("llamastack_begin_span")
        return cast(BeginSpan, partial(ask_first, called)) if called else None

    def add_plugins_of_stack(self, config: object) -> None:
        """Load the plugins that a stack with this config needs. Raises PluginError, or ConfigError of a plugin."""
        for owner, plugin in self.collect("llamastack_stack_plugins", config, required=True):
            name = f"{owner}/{type(plugin).__name__}"
            try:
                self.manager.register(plugin, name=name)
                check_hooks(self.manager, plugin, name)
            except (pluggy.PluginValidationError, ValueError) as error:
                stop_start(owner, "llamastack_stack_plugins", error)
            if any(each.name in _ACCESS_HOOKS for each in self.manager.get_hookcallers(plugin) or ()):
                refused = TypeError(f"{type(plugin).__name__} has {' or '.join(_ACCESS_HOOKS)}")
                stop_start(owner, "llamastack_stack_plugins", refused)

    def _caller(self, hook: str, failed: OnFailure) -> Callable[..., Any]:
        called = self.implementations(hook)
        is_bare = failed is log_failure and not any(each.is_wrapper for each in called)
        call: Callable[..., Any] = partial(tell_all, called) if is_bare else partial(call_all, called, failed)

        def traced(*arguments: object) -> Any:
            sys.stderr.write(f"{hook}{arguments!r}\n")
            return call(*arguments)

        return traced if self._traced else call

    def apis(self) -> dict[str, ApiDefinition]:
        """The built-in APIs and those of plugins, by name.

        Raises DiscoveryError when two claim one name, when a surface cannot serve one, or when the ids that one creates
        cannot say which instance made them.
        """
        from llamastack.provider.builtin_apis import BUILTIN_APIS  # what a command's help does without

        table = {definition.name: definition for definition in BUILTIN_APIS}
        registered = [name for name, _ in self.manager.list_name_plugin()]
        adds: dict[str, str] = {}
        for plugin, definition in self.collect("llamastack_apis"):
            if definition.name in table:
                later = max(plugin, adds.get(definition.name, plugin), key=registered.index)
                raise DiscoveryError(f"plugin {later} adds an API '{definition.name}', which is there already")
            adds[definition.name] = plugin
            if definition.implemented_by_stack and definition.pair is None:
                raise DiscoveryError(f"plugin {plugin} adds an API '{definition.name}' that nobody implements")
            table[definition.name] = definition
        if adds:
            self._caller("llamastack_check_apis", reraise)(table, adds)
            for name, plugin in adds.items():
                _check_ids(table[name], plugin)
        return table

    def config_sections(self) -> tuple[ConfigSection, ...]:
        """The sections of the run config that plugins read.

        Raises DiscoveryError when two claim one name, PluginError when a plugin fails.
        """
        claimed: dict[str, tuple[str, ConfigSection]] = {}
        for plugin, section in self.collect("llamastack_config_sections", required=True):
            other, _ = claimed.setdefault(section.name, (plugin, section))
            if other != plugin:
                raise DiscoveryError(f"config section '{section.name}' is claimed by plugin {other} and by {plugin}")
        return tuple(section for _, section in claimed.values())
