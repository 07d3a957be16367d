"""Models of Amazon Bedrock."""

from llamastack.provider import Api, RemoteProviderSpec
from llamastack_adapters.capabilities import inference_capabilities

BEDROCK = RemoteProviderSpec(
    api=Api.inference,
    provider_type="remote::bedrock",
    config_class="llamastack_provider_bedrock.config:BedrockConfig",
    factory="llamastack_provider_bedrock.inference:get_adapter_impl",
    provider_data_validator="llamastack_provider_bedrock.config:BedrockProviderData",
    description="Models of Amazon Bedrock",
    capabilities=inference_capabilities(completion="unsupported", logprobs="unsupported"),
)
