"""Inference by Fireworks AI.

API: https://docs.fireworks.ai/api-reference/post-chatcompletions
"""

from __future__ import annotations

from llamastack.provider import Deps
from llamastack_adapters.openai_dialect import Dialect, OpenAIInference, as_json_schema
from llamastack_provider_fireworks.config import FireworksConfig


class FireworksInference(OpenAIInference):
    """OpenAI's dialect with more sampling parameters, and with JSON schemas for text completions."""

    key_field = "fireworks_api_key"


async def get_adapter_impl(config: FireworksConfig, deps: Deps) -> FireworksInference:
    """The provider; nothing is opened before its first call."""
    dialect = Dialect(
        deps.provider_id,
        top_k="top_k",
        repetition_penalty="repetition_penalty",
        completion_response_format=as_json_schema,
        samplers=Dialect.SAMPLERS,
    )
    return FireworksInference(config, deps, dialect, url=config.url, key=config.api_key)
