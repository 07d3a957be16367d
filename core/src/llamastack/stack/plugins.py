"""Loads the installed plugins one by one, so that a broken plugin has a name and stops no other plugin."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
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
    FAILURES,
    BeginSpan,
    Implementation,
    OnFailure,
    ask_first,
    call_all,
    check_hooks,
    implementations,
    log_failure,
    stop_start,
    tell_all,
)

if TYPE_CHECKING:
    from llamastack.api.definition import ApiDefinition
    from llamastack.provider.config_sections import ConfigSection

_Collected = list[tuple[str, Any]]
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
    """A plugin that is left out, or something that it adds, and why.

    required: whether the stack must not start without it.
    """

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


def _who(installed: Installed) -> str:
    return f"'{installed.name}' ({installed.origin}, entry point {installed.value})"


def _shown(error: BaseException) -> str:
    return str(error) if isinstance(error, DiscoveryError) else f"{type(error).__name__}: {error}"


class Plugins:
    """The loaded plugins, and calls of their hooks."""

    def __init__(self, discovery: Discovery) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.broken: list[BrokenPlugin] = []
        """Complete when `apis` was called."""
        self._loaded: dict[str, tuple[Installed, bool]] = {}  # and whether it is required
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
            other = name if name in self._loaded else self.manager.get_name(plugin)
            if other is not None:
                raise DiscoveryError(f"{_who(installed)} is there already, as plugin {other}")
            self.manager.register(plugin, name=name)
            check_hooks(self.manager, plugin, name)
            access = [each.name for each in self.manager.get_hookcallers(plugin) or () if each.name in _ACCESS_HOOKS]
            required = required or bool(access)
            _check_group(installed, access)
        except FAILURES as error:
            if name not in self._loaded and self.manager.has_plugin(name):
                self.manager.unregister(name=name)
            says_who = isinstance(error, DiscoveryError | pluggy.PluginValidationError | ValueError)
            cause = str(error) if says_who else f"{_who(installed)} cannot be used: {_shown(error)}"
            self._add_broken(installed, cause, required)
        else:
            self._loaded[name] = installed, required

    def _add_broken(self, installed: Installed, cause: str, required: bool) -> None:
        lines = [line.strip() for line in cause.splitlines() if line.strip()]
        self.broken.append(BrokenPlugin(installed, "; ".join(lines), required))
        _LOGGER.warning("plugin left out: %s", self.broken[-1].cause)

    def _leave_out(self, plugin: str, hook: str, error: BaseException) -> None:
        """For hooks that add something: what this plugin adds is left out."""
        why = error if isinstance(error, Exception) else repr(error)
        _LOGGER.warning("what plugin %s adds by %s is left out: %s", plugin, hook, why)
        if plugin in self._loaded:
            installed, required = self._loaded[plugin]
            self.broken.append(BrokenPlugin(installed, f"{_who(installed)} fails in {hook}: {why}", required))

    def check_required(self) -> None:
        """Raises DiscoveryError where a plugin is broken that the stack must not start without."""
        for broken in self.broken:
            if broken.required:
                raise DiscoveryError(f"a required plugin cannot be used: {broken.cause}")

    def implementations(self, hook: str) -> list[Implementation]:
        """The implementations of a hook, in the order in which they are called."""
        return implementations(self.manager, hook)

    def collect(self, hook: str, *arguments: object, required: bool = False) -> _Collected:
        """(plugin, thing) for each thing that the plugins return, in pluggy's order. A plugin that fails is left out.

        required: raises PluginError for a plugin that fails.
        """
        return self._collect(hook, stop_start if required else self._leave_out, *arguments)

    def _collect(self, hook: str, failed: OnFailure, *arguments: object) -> _Collected:
        kind, found = load_dotted(_GIVEN[hook]), []
        wrong: dict[str, list[str]] = {}
        for plugin, thing in self._caller(hook, failed)(*arguments):
            if isinstance(thing, kind):
                found.append((plugin, thing))
            else:
                wrong.setdefault(plugin, []).append(f"a {type(thing).__name__}")
        for plugin, kinds in wrong.items():
            gives = " and ".join(dict.fromkeys(kinds))
            failed(plugin, hook, TypeError(f"it gives {gives}; allowed: {kind.__name__}"))
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

        A plugin with an API that cannot be used is left out whole: none of its other hooks is called after that, and
        `broken` has the cause. Of two plugins with one name of an API or one route, the first keeps it.
        """
        return dict(self._apis)

    @cached_property
    def _apis(self) -> dict[str, ApiDefinition]:
        from llamastack.provider.builtin_apis import BUILTIN_APIS  # what a command's help does without
        from llamastack.stack.added_apis import with_added

        given: dict[str, list[ApiDefinition]] = {}
        failures: dict[str, BaseException] = {}
        for plugin, api in self._collect("llamastack_apis", lambda name, _, error: failures.update({name: error})):
            given.setdefault(plugin, []).append(api)
        table, owners = {api.name: api for api in BUILTIN_APIS}, dict[str, str]()
        # A failure is raised where the sections are read.
        found = self._collect("llamastack_config_sections", lambda *_: None) if given else ()
        sections = {section.name for _, section in found}
        for plugin in [name for name in self._by_precedence() if name in given or name in failures]:
            try:
                if plugin in failures:
                    raise failures[plugin]
                apis = with_added(table, given[plugin], owners, sections)
                own = dict.fromkeys((api.name for api in given[plugin]), plugin)
                self._caller("llamastack_check_apis", self._refuse)(apis, own)
            except FAILURES as error:
                self._leave_out_whole(plugin, error)
            else:
                table, owners = apis, owners | own
        return table

    def _by_precedence(self) -> list[str]:
        """Required plugins, then the others, both by their entry points, whatever order pluggy calls them in."""
        names = [name for name, _ in self.manager.list_name_plugin()]
        return sorted(names, key=lambda name: not self._loaded.get(name, (None, False))[1])

    def _refuse(self, checker: str, hook: str, error: BaseException) -> None:
        if isinstance(error, DiscoveryError):
            raise DiscoveryError(f"plugin {checker} refuses it: {error}")
        self._leave_out(checker, hook, error)  # the fault of the plugin that checks

    def _leave_out_whole(self, plugin: str, error: BaseException) -> None:
        self.manager.unregister(name=plugin)
        cause = f"adds APIs that cannot be used: {_shown(error)}"
        if plugin in self._loaded:
            installed, required = self._loaded[plugin]
            self._add_broken(installed, f"{_who(installed)} {cause}", required)
        else:
            _LOGGER.warning("plugin left out: %s %s", plugin, cause)

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
