"""Models of OpenAI, and of every server that speaks its API."""

from llamastack.provider import Api, Capabilities, RemoteProviderSpec

OPENAI = RemoteProviderSpec(
    api=Api.inference,
    provider_type="remote::openai",
    config_class="llamastack_provider_openai.config:OpenAIProviderConfig",
    factory="llamastack_provider_openai.inference:get_adapter_impl",
    provider_data_validator="llamastack_provider_openai.config:OpenAIProviderData",
    description="OpenAI, and every server that speaks its API",
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
