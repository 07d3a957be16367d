"""Sentence embeddings in this process. This module holds the spec and is fast to import."""

from llamastack.provider import Api, Capabilities, InlineProviderSpec

SENTENCE_EMBEDDINGS = InlineProviderSpec(
    api=Api.inference,
    provider_type="sentence-embeddings",
    config_class="llamastack_provider_sentence_embeddings.config:SentenceEmbeddingsConfig",
    factory="llamastack_provider_sentence_embeddings.inference:get_provider_impl",
    description="Embeddings of all-MiniLM-L6-v2 on the CPU, in this process",
    capabilities=Capabilities(
        chat_completion="unsupported",
        completion="unsupported",
        embeddings="supported",
        images="unsupported",
        json_schema="unsupported",
        logprobs="unsupported",
        registration="unsupported",
        streaming="unsupported",
        tools="unsupported",
        unregister="unsupported",
    ),
)

__all__ = ["SENTENCE_EMBEDDINGS"]
