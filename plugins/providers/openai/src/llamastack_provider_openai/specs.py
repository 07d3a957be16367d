"""Makes the specs of this package."""

from __future__ import annotations

from collections.abc import Mapping

from llamastack.provider import Api, RemoteProviderSpec
from llamastack_adapters.capabilities import inference_capabilities


def openai_spec(
    provider_type: str,
    *,
    config_class: str,
    provider_data: str,
    factory: str,
    description: str,
    lacks: Mapping[str, str] | None = None,
) -> RemoteProviderSpec:
    """The spec of a service with all of OpenAI's API except the capabilities in `lacks`."""
    return RemoteProviderSpec(
        api=Api.inference,
        provider_type=provider_type,
        config_class=config_class,
        factory=factory,
        provider_data_validator=provider_data,
        description=description,
        capabilities=inference_capabilities(**(lacks or {})),
    )
