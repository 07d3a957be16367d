"""The table of APIs: one row each. A plugin adds rows through the hook `llamastack_apis`."""

from __future__ import annotations

from llamastack.api import Api
from llamastack.api.agents import Agents
from llamastack.api.definition import ApiDefinition, ResourceKind
from llamastack.api.inference import Inference
from llamastack.api.inspect import Inspect
from llamastack.api.memory import Memory
from llamastack.api.memory_banks import MemoryBank, MemoryBanks
from llamastack.api.models import Model, Models
from llamastack.api.safety import Safety
from llamastack.api.shields import Shield, Shields
from llamastack.api.telemetry import Telemetry
from llamastack.provider.protocols import MemoryBanksProtocolPrivate, ModelsProtocolPrivate, ShieldsProtocolPrivate


def routed_apis(protocol: type, resource_protocol: type, kind: ResourceKind) -> tuple[ApiDefinition, ApiDefinition]:
    """A routed API, and the API through which the objects that it is routed by are registered.

    protocol: of the routed API. resource_protocol: of the other. kind: what objects they are, and the names of both.
    """
    return (
        ApiDefinition(kind.routed_api, protocol, kind),
        ApiDefinition(kind.resource_api, resource_protocol, kind, implemented_by_stack=True),
    )


BUILTIN_APIS: tuple[ApiDefinition, ...] = (
    *routed_apis(Inference, Models, ResourceKind(Api.inference.value, "models", "model", Model, ModelsProtocolPrivate)),
    *routed_apis(Safety, Shields, ResourceKind(Api.safety.value, "shields", "shield", Shield, ShieldsProtocolPrivate)),
    *routed_apis(
        Memory,
        MemoryBanks,
        ResourceKind(Api.memory.value, "memory_banks", "memory_bank", MemoryBank, MemoryBanksProtocolPrivate),
    ),
    ApiDefinition(Api.agents.value, Agents),
    ApiDefinition(Api.telemetry.value, Telemetry),
    ApiDefinition("inspect", Inspect, implemented_by_stack=True),
)
"""The APIs that llamastack has without plugins. A client of more gets `apis=[*BUILTIN_APIS, *own]`."""
