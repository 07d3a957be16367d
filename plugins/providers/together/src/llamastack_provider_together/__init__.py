"""Models served by Together AI."""

from llamastack.provider import Api, Capabilities, RemoteProviderSpec

TOGETHER = RemoteProviderSpec(
    api=Api.inference,
    provider_type="remote::together",
    config_class="llamastack_provider_together.config:TogetherConfig",
    factory="llamastack_provider_together.inference:get_adapter_impl",
    provider_data_validator="llamastack_provider_together.config:TogetherProviderData",
    description="Models served by Together AI",
    capabilities=Capabilities(
        chat_completion="supported",
        completion="supported",
        embeddings="supported",
        images="supported",
        json_schema="supported",
        logprobs="supported",
        registration="unsupported",
        streaming="supported",
        tools="supported",
        unregister="unsupported",
    ),
)
