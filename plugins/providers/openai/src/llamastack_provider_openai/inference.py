"""Inference by OpenAI, or another server that speaks its API."""

from __future__ import annotations

from llamastack.provider import Deps
from llamastack_adapters.openai_dialect import Dialect, OpenAIInference
from llamastack_provider_openai.config import OpenAIProviderConfig


class OpenAICompatibleInference(OpenAIInference):
    """The dialect as it is; servers on one's own machines mostly want no key."""

    key_field = "openai_api_key"
    key_needed = False


async def get_adapter_impl(config: OpenAIProviderConfig, deps: Deps) -> OpenAICompatibleInference:
    """The provider; nothing is opened before its first call."""
    dialect = Dialect(
        deps.provider_id,
        max_tokens=config.max_tokens_field,
        top_k=config.top_k_field,
        repetition_penalty=config.repetition_penalty_field,
        samplers=("frequency_penalty", "presence_penalty", "logit_bias"),
    )
    return OpenAICompatibleInference(config, deps, dialect, url=config.url, key=config.api_key)
