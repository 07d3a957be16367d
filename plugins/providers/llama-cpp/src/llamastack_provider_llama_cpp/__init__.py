"""GGUF models in process, by llama.cpp (through xllamacpp)."""

from llamastack.provider import Api, Capabilities, InlineProviderSpec

LLAMA_CPP = InlineProviderSpec(
    api=Api.inference,
    provider_type="llama-cpp",
    config_class="llamastack_provider_llama_cpp.config:LlamaCppConfig",
    factory="llamastack_provider_llama_cpp.inference:get_provider_impl",
    description="GGUF models in process, by llama.cpp",
    capabilities=Capabilities(
        chat_completion="supported",
        completion="supported",
        embeddings="supported",
        images="not implemented",
        json_schema="supported",
        logprobs="supported",
        registration="unsupported",
        streaming="supported",
        tools="supported",
        unregister="unsupported",
    ),
)
