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
from llamastack.provider.protocols import (
    MemoryBanksProtocolPrivate,
    ModelsProtocolPrivate,
    ShieldsProtocolPrivate,
)


def routed_apis(
    *,
    name: str,
    protocol: type,
    table_name: str,
    table_protocol: type,
    object_name: str,
    object_type: object,
    private_protocol: type,
    optional_protocol: type | None = None,
) -> tuple[ApiDefinition, ApiDefinition]:
    """A routed API and the registry API of the objects it is routed by."""
    pair = ResourceKind(
        routed_api=name,
        resource_api=table_name,
        object_name=object_name,
        object_type=object_type,
        private_protocol=private_protocol,
        optional_protocol=optional_protocol,
    )
    return (
        ApiDefinition(name, protocol, pair),
        ApiDefinition(table_name, table_protocol, pair, implemented_by_stack=True),
    )


BUILTIN_APIS: tuple[ApiDefinition, ...] = (
    *routed_apis(
        name=Api.inference.value,
        protocol=Inference,
        table_name="models",
        table_protocol=Models,
        object_name="model",
        object_type=Model,
        private_protocol=ModelsProtocolPrivate,
    ),
    *routed_apis(
        name=Api.safety.value,
        protocol=Safety,
        table_name="shields",
        table_protocol=Shields,
        object_name="shield",
        object_type=Shield,
        private_protocol=ShieldsProtocolPrivate,
    ),
    *routed_apis(
        name=Api.memory.value,
        protocol=Memory,
        table_name="memory_banks",
        table_protocol=MemoryBanks,
        object_name="memory_bank",
        object_type=MemoryBank,
        private_protocol=MemoryBanksProtocolPrivate,
    ),
    ApiDefinition(Api.agents.value, Agents),
    ApiDefinition(Api.telemetry.value, Telemetry),
    ApiDefinition("inspect", Inspect, implemented_by_stack=True),
)
