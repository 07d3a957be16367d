"""The models of an Ollama server."""

from llamastack.provider import Api, RemoteProviderSpec
from llamastack_adapters.capabilities import inference_capabilities

OLLAMA = RemoteProviderSpec(
    api=Api.inference,
    provider_type="remote::ollama",
    config_class="llamastack_provider_ollama.config:OllamaConfig",
    factory="llamastack_provider_ollama.inference:get_adapter_impl",
    provider_data_validator="llamastack_provider_ollama.config:OllamaProviderData",
    description="The models of an Ollama server",
    capabilities=inference_capabilities(
        embeddings="since 0.3",
        images="since 0.1.15",
        json_schema="since 0.5",
        logprobs="since 0.12.11",
        registration="supported",
        tools="since 0.3",
        unregister="not implemented",
    ),
)
