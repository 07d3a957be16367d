"""The pluggy side: load the installed plugins one by one, so that a broken one has a name and stops no other."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from typing import Any

import pluggy

from llamastack.api.definition import ApiDefinition
from llamastack.provider import hookspecs
from llamastack.provider.apis import BUILTIN_APIS
from llamastack.stack.discovery import PLUGIN_GROUP, Discovery, DiscoveryError, Installed

_LOGGER = logging.getLogger("llamastack.plugins")
TRACE_VARIABLE = "LLAMASTACK_TRACE_HOOKS"


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin that could not be loaded, and why."""

    installed: Installed
    cause: str


class Hooks:
    """The loaded plugins. `call` is pluggy's hook relay."""

    def __init__(self, discovery: Discovery) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.broken: list[BrokenPlugin] = []
        if os.environ.get(TRACE_VARIABLE) == "1":
            self.manager.trace.root.setwriter(sys.stderr.write)
            self.manager.enable_tracing()
        for installed in discovery.group(PLUGIN_GROUP):
            if installed.disabled:
                continue
            try:
                self.manager.register(installed.load(), name=f"{installed.distribution}:{installed.name}")
            except (DiscoveryError, pluggy.PluginValidationError, ValueError) as error:
                self.broken.append(BrokenPlugin(installed, str(error)))
                _LOGGER.warning("plugin left out: %s", error)

    @property
    def call(self) -> Any:
        return self.manager.hook

    def notify(self, hook: str, **arguments: Any) -> None:
        """Call a hook whose failure must not hurt what it is told about; failures are logged."""
        caller = getattr(self.manager.hook, hook)
        if not caller.get_hookimpls():
            return
        try:
            caller(**arguments)
        except Exception:
            _LOGGER.exception("a plugin failed in %s", hook)

    def apis(self) -> dict[str, ApiDefinition]:
        """The built-in APIs and those of plugins, by name.

        Raises DiscoveryError when two claim one name.
        """
        table = {definition.name: definition for definition in BUILTIN_APIS}
        for added in self.manager.hook.llamastack_apis():
            for definition in added:
                if definition.name in table:
                    raise DiscoveryError(f"a plugin adds an API '{definition.name}', which is there already")
                table[definition.name] = definition
        return table
