"""Embeddings for tests, without a model. This module holds the spec and is fast to import."""

from llamastack.provider import Api, Capabilities, InlineProviderSpec

TEST_EMBEDDINGS = InlineProviderSpec(
    api=Api.inference,
    provider_type="test-embeddings",
    config_class="llamastack_conformance.embedding.config:TestEmbeddingsConfig",
    factory="llamastack_conformance.embedding.hashed_words:get_provider_impl",
    description="Embeddings for tests: hashed words, without a model; texts that share words are near",
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

__all__ = ["TEST_EMBEDDINGS"]
