"""Models on Text Generation Inference, and on the two services of Hugging Face that speak its API."""

from typing import Any

from llamastack.provider import Api, Capabilities, RemoteProviderSpec

_CAPABILITIES = {
    "chat_completion": "supported",
    "completion": "supported",
    "images": "supported",
    "json_schema": "supported",
    "logprobs": "supported",
    "registration": "unsupported",
    "streaming": "supported",
    "tools": "supported",
    "unregister": "unsupported",
}
_SHARED: dict[str, Any] = {
    "api": Api.inference,
    "factory": "llamastack_provider_tgi.inference:get_adapter_impl",
    "provider_data_validator": "llamastack_provider_tgi.config:HuggingFaceProviderData",
}

TGI = RemoteProviderSpec(
    provider_type="remote::tgi",
    config_class="llamastack_provider_tgi.config:TGIConfig",
    description="A server of text-generation-inference",
    capabilities=Capabilities(**_CAPABILITIES, embeddings="unsupported"),
    **_SHARED,
)
SERVERLESS = RemoteProviderSpec(
    provider_type="remote::hf::serverless",
    config_class="llamastack_provider_tgi.config:ServerlessConfig",
    description="A model of the Hugging Face Hub, by its serverless inference",
    capabilities=Capabilities(**_CAPABILITIES, embeddings="not implemented"),
    **_SHARED,
)
ENDPOINT = RemoteProviderSpec(
    provider_type="remote::hf::endpoint",
    config_class="llamastack_provider_tgi.config:EndpointConfig",
    description="A dedicated Inference Endpoint of Hugging Face",
    capabilities=Capabilities(**_CAPABILITIES, embeddings="not implemented"),
    **_SHARED,
)
