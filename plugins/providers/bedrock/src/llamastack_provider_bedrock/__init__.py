"""Models of Amazon Bedrock."""

from llamastack.provider import Api, Capabilities, RemoteProviderSpec

BEDROCK = RemoteProviderSpec(
    api=Api.inference,
    provider_type="remote::bedrock",
    config_class="llamastack_provider_bedrock.config:BedrockConfig",
    factory="llamastack_provider_bedrock.inference:get_adapter_impl",
    provider_data_validator="llamastack_provider_bedrock.config:BedrockProviderData",
    description="Models of Amazon Bedrock",
    capabilities=Capabilities(
        chat_completion="supported",
        completion="unsupported",
        embeddings="supported",
        images="supported",
        json_schema="supported",
        logprobs="unsupported",
        registration="unsupported",
        streaming="supported",
        tools="supported",
        unregister="unsupported",
    ),
)
