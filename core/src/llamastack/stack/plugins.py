"""The pluggy side: load the installed plugins one by one, so that a broken one has a name and stops no other."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pluggy

from llamastack.provider import hookspecs
from llamastack.stack.discovery import (
    DISABLE_VARIABLE,
    REQUIRED_PLUGIN_GROUP,
    Discovery,
    DiscoveryError,
    Installed,
)
from llamastack.stack.hook_calls import AsyncHook, async_hooks, check_async_hooks, collected, telling

if TYPE_CHECKING:
    from llamastack.api.definition import ApiDefinition
    from llamastack.provider.config_sections import ConfigSection
    from llamastack.stack.config import RunConfig

_LOGGER = logging.getLogger("llamastack.plugins")
TRACE_VARIABLE = "LLAMASTACK_TRACE_HOOKS"
_ACCESS_HOOKS = ("llamastack_authenticate", "llamastack_authorize")


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin that could not be loaded, and why. required: whether the stack must not start without it."""

    installed: Installed
    cause: str
    required: bool = False


class _MisplacedPluginError(DiscoveryError):
    """A plugin decides about access, and its entry point does not say that it is required."""


class Plugins:
    """The loaded plugins. `call` is pluggy's hook relay."""

    def __init__(self, discovery: Discovery) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.broken: list[BrokenPlugin] = []
        self._traced = os.environ.get(TRACE_VARIABLE) == "1"
        if self._traced:
            self.manager.trace.root.setwriter(sys.stderr.write)
            self.manager.enable_tracing()
        for installed in discovery.plugins():
            if not installed.disabled:
                self._load(installed)
            elif installed.group == REQUIRED_PLUGIN_GROUP:
                _LOGGER.warning("the required plugin '%s' is disabled by %s", installed.name, DISABLE_VARIABLE)

    def _load(self, installed: Installed) -> None:
        name = f"{installed.distribution}:{installed.name}"
        required = installed.group == REQUIRED_PLUGIN_GROUP
        try:
            plugin = installed.load()
            required = required or any(hasattr(plugin, hook) for hook in _ACCESS_HOOKS)
            self.manager.register(plugin, name=name)
            self.manager.check_pending()
            check_async_hooks(self.manager, plugin)
            self._check_group(plugin, installed)
        except (DiscoveryError, pluggy.PluginValidationError, ValueError) as error:
            if self.manager.has_plugin(name):
                self.manager.unregister(name=name)
            required = required or isinstance(error, _MisplacedPluginError)
            self.broken.append(BrokenPlugin(installed, str(error), required))
            _LOGGER.warning("plugin left out: %s", error)

    def _check_group(self, plugin: object, installed: Installed) -> None:
        """Of a plugin in another group that does not load, nobody would know that it was to keep people out."""
        access = [each.name for each in self.manager.get_hookcallers(plugin) or () if each.name in _ACCESS_HOOKS]
        if access and installed.group != REQUIRED_PLUGIN_GROUP:
            raise _MisplacedPluginError(
                f"'{installed.name}' ({installed.origin}) has {access[0]}, so its entry point must be in the group "
                f"'{REQUIRED_PLUGIN_GROUP}': no stack may start without it"
            )

    def check_required(self) -> None:
        """Raises DiscoveryError where a plugin is broken that the stack must not start without."""
        for broken in self.broken:
            if broken.required:
                raise DiscoveryError(f"a required plugin cannot be used: {broken.cause}")

    @property
    def call(self) -> Any:
        return self.manager.hook

    def listener(self, hook: str) -> Callable[..., None] | None:
        """A function that calls the plugins that implement `hook`; None if there is none. A failure is logged; it must
        not affect the event that the hook reports, nor the other plugins.
        """
        return telling(self.manager, hook, traced=self._traced)

    def async_hooks(self, hook: str) -> list[AsyncHook]:
        """The implementations of an async hook, in the order in which they are called."""
        return async_hooks(self.manager, hook)

    def notify(self, hook: str, **arguments: Any) -> None:
        """Tell the plugins that implement `hook`, where there are any."""
        listener = self.listener(hook)
        if listener is not None:
            listener(**arguments)

    def apis(self) -> dict[str, ApiDefinition]:
        """The built-in APIs and those of plugins, by name.

        Raises DiscoveryError when two claim one name, or when a surface cannot serve one.
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
            self.call.llamastack_check_apis(apis=table, added=adds)
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

    def run_config_model(self) -> type[RunConfig]:
        """What a run config must be, with the objects of all APIs and the sections that plugins read."""
        from llamastack.stack.config import run_config_model

        return run_config_model(self.apis(), self.config_sections())

    def collect(self, hook: str, *, required: bool = False, **arguments: object) -> Iterator[tuple[str, Any]]:
        """(plugin, thing) for each thing that the plugins give, in pluggy's order; one that fails is left out.

        required: one that fails is a PluginError instead.
        """
        return collected(self.manager, hook, arguments, required=required)
