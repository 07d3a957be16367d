"""Checks that start nothing: the run config, its packages and variables, plugins, the store."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from llamastack.stack import ConfigError, Stack
from llamastack.stack.config import load_config
from llamastack.stack.discovery import PROVIDER_GROUP_PREFIX, Discovery, DiscoveryError, default_discovery
from llamastack.stack.plugins import Plugins
from llamastack.stack.yaml_source import ConfigIssue
from llamastack_cli.doctor.advice import advice_on_config, advice_on_plugin
from llamastack_cli.doctor.report import Check, Outcome, Place
from llamastack_cli.doctor.store_check import check_store

_VARIABLE = re.compile(r"\$\{env\.([A-Za-z_][A-Za-z0-9_]*)")


_FILLERS = ("not-set", "1")
"""Texts for variables that are not set; one of them is valid where a text, a number, or true or false is wanted."""


class _Filled(Mapping[str, str]):
    """The environment, with a text for each variable that is not set."""

    def __init__(self, filler: str) -> None:
        self._filler = filler

    def __getitem__(self, name: str) -> str:
        return os.environ.get(name) or self._filler

    def __iter__(self) -> Iterator[str]:
        return iter(os.environ)

    def __len__(self) -> int:
        return len(os.environ)

    def get(self, key: str, default: object = None) -> str:
        return self[key]


def read_config(file: str) -> tuple[Stack | None, list[Check]]:
    """(the stack, not started, or None if the run config is wrong; what was found)."""
    discovery = default_discovery()
    try:
        stack = Stack.from_config(file, discovery=discovery)
        stack.check_sections()
    except ConfigError as error:
        return None, [_failed(error.source, fault) for fault in _all_faults(file, error, discovery)]
    except DiscoveryError as error:
        advice = advice_on_plugin(str(error))
        return None, [Check(name="plugins", about="required", outcome=Outcome.FAIL, message=str(error), advice=advice)]
    found = [
        Check(name="config", about=stack.config.source, outcome=Outcome.OK),
        _packages(stack),
        _variables(stack),
        *_broken_plugins(stack),
        check_store(stack.config),
    ]
    return stack, found


def _all_faults(file: str, error: ConfigError, discovery: Discovery) -> list[ConfigIssue]:
    """A variable that is not set hides all other faults: they are looked for with a text in its place."""
    faults = list(error.faults)
    unset = {fault.path for fault in faults if "environment variable" in fault.message}
    if not unset:
        return faults
    for filler in _FILLERS:
        try:
            hooks = Plugins(discovery)
            apis = hooks.apis()
            config = load_config(file, apis, discovery, _Filled(filler), hooks.config_sections())
            Stack(config, discovery=discovery, hooks=hooks, apis=apis)
        except ConfigError as more:
            known = {fault.path for fault in faults}
            faults += [fault for fault in more.faults if fault.path not in known]
    return sorted(faults, key=lambda fault: fault.line or 0)


def _failed(source: str, fault: ConfigIssue) -> Check:
    name = "config"
    if "environment variable" in fault.message:
        name = "environment"
    elif "pip install" in fault.message:
        name = "packages"
    place = Place.of(source, fault.line, fault.path)
    about = place.path or source
    advice = advice_on_config(fault.message)
    return Check(name=name, about=about, outcome=Outcome.FAIL, message=fault.message, place=place, advice=advice)


def _packages(stack: Stack) -> Check:
    run = stack.config.run
    needed = [
        stack.discovery.find(f"{PROVIDER_GROUP_PREFIX}{planned.api}", planned.provider_type, provider.package).origin
        for planned in stack.plan.providers
        for provider in run.providers[planned.api]
        if provider.provider_id == planned.provider_id
    ]
    message = ", ".join(dict.fromkeys(needed))
    return Check(name="packages", about="of the providers", outcome=Outcome.OK, message=message)


def _variables(stack: Stack) -> Check:
    texts = stack.config.from_environment.values()
    names = dict.fromkeys(name for text in texts for name in _VARIABLE.findall(text))
    message = ", ".join(f"{name} ({'set' if os.environ.get(name) else 'default'})" for name in names) or "none is used"
    return Check(name="environment", about="variables", outcome=Outcome.OK, message=message)


def _broken_plugins(stack: Stack) -> list[Check]:
    return [
        Check(
            name="plugins",
            about=broken.installed.name,
            outcome=Outcome.FAIL,
            message=broken.cause,
            advice=advice_on_plugin(broken.cause),
        )
        for broken in stack.hooks.broken
    ]


def variables_of(stack: Stack, path: tuple[str | int, ...]) -> list[str]:
    """The environment variables that the config below `path` refers to."""
    below = [text for keys, text in stack.config.from_environment.items() if keys[: len(path)] == path]
    return list(dict.fromkeys(name for text in below for name in _VARIABLE.findall(text)))
