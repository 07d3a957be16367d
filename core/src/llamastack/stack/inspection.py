"""The stack's own implementation of the inspect API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from llamastack.api.definition import ApiDefinition
from llamastack.api.inspect import (
    HealthInfo,
    HealthStatus,
    Inspect,
    ProviderHealth,
    ProviderInfo,
    ProviderStatus,
    Readiness,
    RouteInfo,
)
from llamastack.provider.context import current_context
from llamastack.provider.errors import NotFoundError, ProviderUnavailableError
from llamastack.provider.hookspecs import Action, Resource
from llamastack.stack.access import AccessControl
from llamastack.stack.resolver import provider_api
from llamastack.stack.resource_routing import VisibleObjects
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
        access: AccessControl,
    ) -> None:
        self._apis = apis
        self._instances = instances
        self._tables = tables
        self._access = access

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

    async def ready(self, *, api: str | None = None, model: str | None = None) -> Readiness:
        if api is not None and api not in self._instances:
            raise NotFoundError(f"no provider serves API '{api}'; APIs: {', '.join(self._instances)}", param="api")
        asked = [api] if api is not None else [] if model is not None else list(self._instances)
        found = {name: [instance.describe() for instance in self._instances[name]] for name in asked}
        missing = [name for name, each in found.items() if all(p.status is not ProviderStatus.healthy for p in each)]
        if missing:
            faults = [p for name in missing for p in found[name]]
            whys = "; ".join(f"{p.api}: '{p.provider_id}' is {p.status}: {p.shown_reason}".rstrip(": ") for p in faults)
            others = ", ".join(name for name in found if name not in missing)
            raise ProviderUnavailableError(
                f"not ready: {whys}" + (f". Ready: {others}" if others else ""),
                errors=[{"loc": [p.api, p.provider_id], "msg": p.reason or "", "type": p.status} for p in faults],
            )
        if model is not None:
            await self._require_model(model)
        return Readiness(apis=found, model=model)

    async def _require_model(self, name: str) -> None:
        table = self._tables.get("inference")
        if table is None:
            raise NotFoundError(f"no model '{name}' is served: no provider serves API 'inference'", param="model")
        found = VisibleObjects(table, self._access).find(name, "model")
        if current_context().principal is None and (self._access.authenticates or self._access.authorizes):
            # A caller without a principal must not learn which names there are.
            with suppress(NotFoundError, ProviderUnavailableError):
                if (await found)[1].status is ProviderStatus.healthy:
                    return
            raise ProviderUnavailableError("the model is not ready")
        item, instance = await found
        await self._access.check(Action.READ, Resource("models", "ready", item.identifier, item.provider_id))
        if instance.status is not ProviderStatus.healthy:
            raise instance.unavailable()

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
