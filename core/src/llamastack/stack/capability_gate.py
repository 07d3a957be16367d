"""Refuses calls that need what a provider's spec declares as not there, before the provider is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llamastack.api.common import holds_images
from llamastack.api.definition import IMAGES, MethodDefinition
from llamastack.provider.errors import NotSupportedError
from llamastack.provider.provider_call import ProviderCall
from llamastack.stack.resolver import PlannedProvider

CapabilityGate = Callable[[ProviderCall], None]
"""Raises NotSupportedError."""


def capability_gate(plan: PlannedProvider, method: MethodDefinition) -> CapabilityGate | None:
    """The check for the calls of one method of one instance; None if the instance supports all of it."""
    web = method.web
    # (parameter, or "" for the whole method; capability; whether a value needs it)
    uses: list[tuple[str, str, Callable[[object], bool]]] = [("", web.capability or "", bool)]
    uses += [(param, capability, _need(param)) for param, capability in web.argument_capabilities.items()]
    uses += [(param, IMAGES, holds_images) for param in web.image_arguments]
    capabilities = plan.spec.capabilities
    refused = [use for use in uses if capabilities.refused(use[1])]
    if not refused:
        return None

    def check(call: ProviderCall) -> None:
        needed = call.by.needs(call.request)
        for param, capability, needs in refused:
            if param and not needs(needed.get(param.partition(".")[0])):
                continue
            what = f"'{param}' of {method.name}" if param else method.name
            raise NotSupportedError(
                f"provider '{plan.provider_id}' ({plan.provider_type}) does not support {what} "
                f"({capability}: {capabilities[capability]})",
                provider_id=plan.provider_id,
                param=param.partition("=")[0] or None,
            )

    return check


def _need(param: str) -> Callable[[object], bool]:
    """Whether the value of a parameter needs a capability: `x`, any; `x.y`, its key `y`; `x.y=z`, that key as `z`."""
    key, _, wanted = param.partition(".")[2].partition("=")
    if not key:
        return bool

    def needs(value: object) -> bool:
        found = value.get(key) if isinstance(value, Mapping) else None
        return found == wanted if wanted else bool(found)

    return needs
