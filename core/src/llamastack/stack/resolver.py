"""From a run config to a plan: which spec each instance has, its validated config, and the order of starting."""

from __future__ import annotations

import graphlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from llamastack.api.definition import ApiDefinition
from llamastack.provider.spec import EVERY_API, ProviderSpec
from llamastack.stack.config import LoadedConfig, check_references
from llamastack.stack.discovery import PROVIDER_GROUP_PREFIX, Discovery, DiscoveryError
from llamastack.stack.yaml_source import ConfigError, ConfigIssue, Path


@dataclass(frozen=True)
class PlannedProvider:
    """One instance to start.

    path: where the run config has it.
    config: the validated config object, or why it could not be made (a missing module of the provider itself is no
    fault of the run config, and keeps only this instance from starting).
    """

    path: Path
    provider_id: str
    spec: ProviderSpec
    config: BaseModel | Exception

    @property
    def api(self) -> str:
        return self.spec.api

    @property
    def provider_type(self) -> str:
        return self.spec.provider_type

    @property
    def dependencies(self) -> tuple[str, ...]:
        """The APIs that it calls where the stack has them; `EVERY_API` among them stands for all."""
        return (*self.spec.api_dependencies, *self.spec.optional_api_dependencies)

    def may_call(self, api: str) -> bool:
        """Whether it is given this API."""
        return api in self.dependencies or (EVERY_API in self.dependencies and api != self.api)


@dataclass(frozen=True)
class Plan:
    """providers: in the order of the run config. start_order: API names, dependencies first."""

    providers: tuple[PlannedProvider, ...]
    start_order: tuple[str, ...]


def resolve(config: LoadedConfig, apis: Mapping[str, ApiDefinition], discovery: Discovery) -> Plan:
    """Load the specs that the run config names, validate each provider's config, order the APIs.

    Raises ConfigError with every fault found: unknown, ambiguous, disabled or broken provider types, bad provider
    configs, missing APIs, cycles.
    """
    faults: list[ConfigIssue] = check_references(config, apis, discovery)
    planned: list[PlannedProvider] = []
    wanted = config.run.apis
    for api, providers in config.run.providers.items():
        if api not in apis or (wanted is not None and api not in wanted):
            continue
        for place, provider in enumerate(providers):
            path = ("providers", api, place)
            try:
                installed = discovery.find(f"{PROVIDER_GROUP_PREFIX}{api}", provider.provider_type, provider.package)
                spec = discovery.load_spec(installed)
            except DiscoveryError as error:
                key = "package" if provider.package and "not brought" in str(error) else "provider_type"
                faults.append(config.fault((*path, key), str(error)))
                continue
            if (missing := installed.missing_extra) is not None:
                faults.append(config.fault((*path, "provider_type"), f"'{installed.name}' cannot be used: {missing}"))
                continue
            settings: BaseModel | Exception
            try:
                settings = config.validated(spec.load_config_class(), (*path, "config"), provider.config)
            except ConfigError as error:
                faults += error.faults
                continue
            except (ImportError, AttributeError, TypeError) as error:
                settings = error
            except SystemExit as error:  # out of the provider's own modules
                settings = ImportError(f"{spec.config_class} ended with SystemExit: {error}")
            planned.append(PlannedProvider(path, provider.provider_id, spec, settings))
    if faults:
        raise ConfigError(config.source, faults)
    return Plan(tuple(planned), _start_order(config, apis, planned))


def provider_api(name: str, apis: Mapping[str, ApiDefinition]) -> str:
    """The API whose providers serve the API `name`: for models that is inference."""
    definition = apis.get(name)
    return definition.pair.routed_api if definition is not None and definition.pair else name


def _start_order(
    config: LoadedConfig, apis: Mapping[str, ApiDefinition], planned: list[PlannedProvider]
) -> tuple[str, ...]:
    # API -> each API that it needs, with the provider that needs it
    graph: dict[str, dict[str, PlannedProvider]] = {provider.api: {} for provider in planned}
    faults: list[ConfigIssue] = []
    for provider in planned:
        for name in provider.dependencies:
            needed = provider_api(name, apis)
            if needed in graph:
                graph[provider.api].setdefault(needed, provider)
            elif name in provider.spec.api_dependencies:
                there = needed in config.run.providers
                why = "is left out of 'apis'" if there else f"has no provider; add one to providers.{needed}"
                chain = f"{provider.api} ({provider.provider_type}) -> {name}"
                what = f"'{provider.provider_type}' needs API '{name}' ({chain}), which {why}"
                faults.append(config.fault(provider.path, what))
    if faults:
        raise ConfigError(config.source, faults)
    for provider in planned:
        if EVERY_API in provider.dependencies:  # except those that need it
            for other in sorted(graph):
                if provider.api not in _reached(graph, other):
                    graph[provider.api].setdefault(other, provider)
    try:
        return tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        # graphlib lists each node before the one that depends on it; people read "needs" the other way round.
        cycle: list[str] = list(reversed(error.args[1]))
        steps = [f"{api} ({graph[api][needed].provider_type})" for api, needed in itertools.pairwise(cycle)]
        chain = " -> ".join([*steps, cycle[-1]])
        raise config.error(("providers", cycle[0]), f"these providers need each other: {chain}") from None


def _reached(graph: Mapping[str, Mapping[str, object]], api: str) -> set[str]:
    """The API, and all that it needs, directly or not."""
    found, left = {api}, [api]
    while left:
        new = graph[left.pop()].keys() - found
        found |= new
        left += new
    return found
