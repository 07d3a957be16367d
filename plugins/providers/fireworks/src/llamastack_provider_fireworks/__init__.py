"""Models served by Fireworks AI."""

from llamastack.provider import Api, Capabilities, RemoteProviderSpec

FIREWORKS = RemoteProviderSpec(
    api=Api.inference,
    provider_type="remote::fireworks",
    config_class="llamastack_provider_fireworks.config:FireworksConfig",
    factory="llamastack_provider_fireworks.inference:get_adapter_impl",
    provider_data_validator="llamastack_provider_fireworks.config:FireworksProviderData",
    description="Models served by Fireworks AI",
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
