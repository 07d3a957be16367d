"""Refuses calls that need what a provider's spec declares as not there, before the provider is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llamastack.api.common import holds_images
from llamastack.api.definition import IMAGES, MethodDefinition
from llamastack.provider.errors import NotSupportedError
from llamastack.provider.provider_call import Proceed, ProviderCall
from llamastack.stack.resolver import PlannedProvider


@dataclass(frozen=True, slots=True)
class UnsupportedUse:
    """What an instance cannot do: a whole method ("" as parameter), or a value of a parameter that `is_asked_by`."""

    parameter: str
    capability: str
    is_asked_by: Callable[[object], bool]


class CapabilityGate:
    """One method of one instance. It stands around calls as `llamastack_around_call` does, innermost."""

    def __init__(self, plan: PlannedProvider, name: str, refused: list[UnsupportedUse]) -> None:
        self._plan = plan
        self._name = name
        self._refused = refused

    async def around_call(self, call: ProviderCall, proceed: Proceed) -> object:
        """Raises NotSupportedError."""
        request = call.native_request if any(use.parameter for use in self._refused) else {}
        for use in self._refused:
            param = use.parameter
            if param and not use.is_asked_by(request.get(param)):
                continue
            plan = self._plan
            what = f"'{param}' of {self._name}" if param else self._name
            raise NotSupportedError(
                f"provider '{plan.provider_id}' ({plan.provider_type}) does not support {what} "
                f"({use.capability}: {plan.spec.capabilities[use.capability]})",
                provider_id=plan.provider_id,
                param=param or None,
            )
        return await proceed(call)


def capability_gate(plan: PlannedProvider, method: MethodDefinition) -> CapabilityGate | None:
    """The gate of a method; None if the instance supports all of it."""
    web = method.web
    uses = [UnsupportedUse("", web.capability or "", bool)]
    uses += [UnsupportedUse(param, capability, bool) for param, capability in web.argument_capabilities.items()]
    uses += [UnsupportedUse(param, IMAGES, holds_images) for param in web.image_arguments]
    refused = [use for use in uses if plan.spec.capabilities.refused(use.capability)]
    return CapabilityGate(plan, method.name, refused) if refused else None
