"""From a run config to a plan: which spec each instance has, its validated config, and the order of starting."""

from __future__ import annotations

import graphlib
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from llamastack.api.definition import ApiDefinition
from llamastack.provider.spec import ProviderSpec
from llamastack.stack.config import ConfigError, LoadedConfig, check_references
from llamastack.stack.discovery import PROVIDER_GROUP_PREFIX, Discovery, DiscoveryError
from llamastack.stack.yaml_source import ConfigIssue


@dataclass(frozen=True)
class PlannedProvider:
    """One instance to start.

    config: the validated config object, or why it could not be made (a missing module of the provider itself is no
    fault of the run config, and keeps only this instance from starting).
    """

    api: str
    provider_id: str
    provider_type: str
    spec: ProviderSpec
    config: BaseModel | Exception


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
    faults: list[ConfigIssue] = check_references(config, apis)
    planned: list[PlannedProvider] = []
    wanted = config.run.apis
    for api, providers in config.run.providers.items():
        if api not in apis or (wanted is not None and api not in wanted):
            continue
        for place, provider in enumerate(providers):
            path = ("providers", api, place)
            try:
                installed = discovery.find(
                    f"{PROVIDER_GROUP_PREFIX}{api}", provider.provider_type, provider.distribution
                )
                spec = discovery.load_spec(installed)
            except DiscoveryError as error:
                key = "distribution" if provider.distribution and "not brought" in str(error) else "provider_type"
                faults.append(config.fault((*path, key), str(error)))
                continue
            settings: BaseModel | Exception
            try:
                model = spec.load_config_class()
                try:
                    settings = model.model_validate(provider.config)
                except ValidationError as error:
                    faults += config.faults_in(error, (*path, "config"), provider.config, model)
                    continue
            except (ImportError, AttributeError, TypeError) as error:
                settings = error
            except SystemExit as error:  # out of the provider's own modules
                settings = ImportError(f"{spec.config_class} ended with SystemExit: {error}")
            planned.append(PlannedProvider(api, provider.provider_id, provider.provider_type, spec, settings))
    if faults:
        raise ConfigError(config.source, faults)
    return Plan(tuple(planned), _start_order(config, apis, planned))


def _start_order(
    config: LoadedConfig, apis: Mapping[str, ApiDefinition], planned: list[PlannedProvider]
) -> tuple[str, ...]:
    present = list(dict.fromkeys(p.api for p in planned))
    served = {*present, *(d.pair.resource_api for name in present if (d := apis[name]).pair)}
    graph: dict[str, set[str]] = {api: set() for api in present}
    faults: list[ConfigIssue] = []
    for api in present:
        for place, provider in enumerate(p for p in planned if p.api == api):
            spec = provider.spec
            for needed in spec.api_dependencies:
                if needed not in served:
                    chain = f"{api} ({provider.provider_type}) -> {needed}"
                    there = needed in config.run.providers
                    why = "is left out of 'apis'" if there else f"has no provider; add one to providers.{needed}"
                    what = f"'{provider.provider_type}' needs API '{needed}' ({chain}), which {why}"
                    faults.append(config.fault(("providers", api, place), what))
            for needed in (*spec.api_dependencies, *spec.optional_api_dependencies):
                routed = next((d.pair.routed_api for d in apis.values() if d.name == needed and d.pair), needed)
                if routed in graph:
                    graph[api].add(routed)
    if faults:
        raise ConfigError(config.source, faults)
    try:
        return tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        # graphlib lists each node before the one that depends on it; people read "needs" the other way round.
        cycle: list[str] = list(reversed(error.args[1]))
        steps = [
            f"{api} ({next(p.provider_type for p in planned if p.api == api and _needs(p, cycle[n + 1], apis))})"
            for n, api in enumerate(cycle[:-1])
        ]
        chain = " -> ".join([*steps, cycle[-1]])
        raise config.error(("providers", cycle[0]), f"these providers need each other: {chain}") from None


def _needs(provider: PlannedProvider, api: str, apis: Mapping[str, ApiDefinition]) -> bool:
    names = {api, *(d.pair.resource_api for d in apis.values() if d.pair and d.pair.routed_api == api)}
    return bool(names & {*provider.spec.api_dependencies, *provider.spec.optional_api_dependencies})
