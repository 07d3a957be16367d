"""Models served by Fireworks AI."""

from llamastack.provider import Api, RemoteProviderSpec
from llamastack_adapters.capabilities import inference_capabilities

FIREWORKS = RemoteProviderSpec(
    api=Api.inference,
    provider_type="remote::fireworks",
    config_class="llamastack_provider_fireworks.config:FireworksConfig",
    factory="llamastack_provider_fireworks.inference:get_adapter_impl",
    provider_data_validator="llamastack_provider_fireworks.config:FireworksProviderData",
    description="Models served by Fireworks AI",
    capabilities=inference_capabilities(),
)
