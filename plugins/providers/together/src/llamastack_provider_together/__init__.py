"""Models served by Together AI."""

from llamastack.provider import Api, RemoteProviderSpec
from llamastack_adapters.capabilities import inference_capabilities

TOGETHER = RemoteProviderSpec(
    api=Api.inference,
    provider_type="remote::together",
    config_class="llamastack_provider_together.config:TogetherConfig",
    factory="llamastack_provider_together.inference:get_adapter_impl",
    provider_data_validator="llamastack_provider_together.config:TogetherProviderData",
    description="Models served by Together AI",
    capabilities=inference_capabilities(),
)
