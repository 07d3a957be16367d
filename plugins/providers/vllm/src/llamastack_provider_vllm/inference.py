"""Inference by vLLM's OpenAI-compatible server.

API: https://docs.vllm.ai/en/stable/serving/openai_compatible_server/
"""

from __future__ import annotations

from typing import Any

from llamastack.api.common import SamplingStrategy
from llamastack.provider import Deps
from llamastack_adapters.openai_dialect import Dialect, OpenAIInference, as_json_schema
from llamastack_provider_vllm.config import RemoteVLLMConfig

# By default vLLM applies the model's `generation_config.json`; a strategy uses only its own sampler.
_ONLY: dict[SamplingStrategy, dict[str, Any]] = {
    SamplingStrategy.top_p: {"top_k": -1},
    SamplingStrategy.top_k: {"top_p": 1.0},
}


def vllm_dialect(provider_id: str) -> Dialect:
    """The dialect of vLLM."""
    return Dialect(
        provider_id,
        top_k="top_k",
        repetition_penalty="repetition_penalty",
        completion_response_format=as_json_schema,
        only=_ONLY,
        samplers=Dialect.SAMPLERS,
    )


class VLLMInference(OpenAIInference):
    """The OpenAI dialect with more samplers, and with JSON schemas for text completions."""

    key_field = "vllm_api_key"
    key_needed = False


async def get_adapter_impl(config: RemoteVLLMConfig, deps: Deps) -> VLLMInference:
    """Make the provider. It opens nothing before its first call."""
    return VLLMInference(config, deps, vllm_dialect(deps.provider_id), url=config.url, key=config.api_key)
