"""How the specs of this package are made."""

from __future__ import annotations

from collections.abc import Mapping

from llamastack.provider import Api, Capabilities, RemoteProviderSpec

_SUPPORTED = ("chat_completion", "completion", "embeddings", "images", "json_schema", "logprobs", "streaming", "tools")
_UNSUPPORTED = ("registration", "unregister")


def openai_spec(
    provider_type: str,
    *,
    config_class: str,
    provider_data: str,
    factory: str,
    description: str,
    lacks: Mapping[str, str] | None = None,
) -> RemoteProviderSpec:
    """The spec of a service that does what OpenAI's API does, but for the capabilities in `lacks`."""
    capabilities = {**dict.fromkeys(_SUPPORTED, "supported"), **dict.fromkeys(_UNSUPPORTED, "unsupported")}
    unknown = sorted(set(lacks or ()) - capabilities.keys())
    if unknown:
        raise ValueError(f"{provider_type}: no such capability: {', '.join(unknown)}")
    return RemoteProviderSpec(
        api=Api.inference,
        provider_type=provider_type,
        config_class=config_class,
        factory=factory,
        provider_data_validator=provider_data,
        description=description,
        capabilities=Capabilities(**{**capabilities, **(lacks or {})}),
    )
