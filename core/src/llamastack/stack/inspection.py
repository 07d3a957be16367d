"""The stack's own implementation of the inspect API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llamastack.api.definition import ApiDefinition
from llamastack.api.inspect import (
    HealthInfo,
    HealthStatus,
    Inspect,
    ProviderHealth,
    ProviderInfo,
    ProviderStatus,
    RouteInfo,
)
from llamastack.stack.resolver import provider_api
from llamastack.stack.resources.catalogue import ResourceCatalogue
from llamastack.stack.supervisor import SupervisedProvider

_MOST_REFUSED = 3


class StackInspect(Inspect):
    """Looks at the instances and the APIs of one stack."""

    def __init__(
        self,
        apis: Mapping[str, ApiDefinition],
        instances: Mapping[str, Sequence[SupervisedProvider]],
        tables: Mapping[str, ResourceCatalogue],
    ) -> None:
        self._apis = apis
        self._instances = instances
        self._tables = tables

    async def list_providers(self) -> dict[str, list[ProviderInfo]]:
        return {
            api: [ProviderInfo(provider_id=i.provider_id, provider_type=i.provider_type) for i in instances]
            for api, instances in self._instances.items()
        }

    async def list_routes(self) -> dict[str, list[RouteInfo]]:
        found: dict[str, list[RouteInfo]] = {}
        for name, definition in self._apis.items():
            instances = self._instances.get(provider_api(name, self._apis), ())
            types = list(dict.fromkeys(instance.provider_type for instance in instances))
            found[name] = [
                RouteInfo(route=method.web.route, method=http_method, provider_types=types)
                for method in definition.methods.values()
                for http_method in method.web.methods
            ]
        return found

    async def health(self) -> HealthInfo:
        providers = [self._describe(i, self._tables.get(api)) for api, each in self._instances.items() for i in each]
        healthy = all(p.status is ProviderStatus.healthy for p in providers)
        return HealthInfo(status=HealthStatus.ok if healthy else HealthStatus.degraded, providers=providers)

    def _describe(self, instance: SupervisedProvider, table: ResourceCatalogue | None) -> ProviderHealth:
        described = instance.describe()
        if table is None:
            return described
        notes = [instance.note] if instance.note else []
        refused = list(table.refused(instance).items())
        notes += [f"does not take {table.pair.label} '{name}': {why}" for name, why in refused[:_MOST_REFUSED]]
        if len(refused) > _MOST_REFUSED:
            notes.append(f"nor {len(refused) - _MOST_REFUSED} more")
        return described.model_copy(update={"serves": table.count(instance), "note": "; ".join(notes) or None})
