"""Inference by vLLM's OpenAI-compatible server.

API: https://docs.vllm.ai/en/stable/serving/openai_compatible_server/
"""

from __future__ import annotations

from typing import Any

from llamastack.api.common import SamplingStrategy
from llamastack.provider import Deps
from llamastack_adapters.openai_dialect import Dialect, OpenAIInference, as_json_schema
from llamastack_provider_vllm.config import RemoteVLLMConfig

# vLLM samples by default as the model's `generation_config.json` says; a strategy means only its own.
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
    """The dialect, with more ways to sample, and JSON schemas for text completions too."""

    key_field = "vllm_api_key"
    key_needed = False


async def get_adapter_impl(config: RemoteVLLMConfig, deps: Deps) -> VLLMInference:
    """The provider; nothing is opened before its first call."""
    return VLLMInference(config, deps, vllm_dialect(deps.provider_id), url=config.url, key=config.api_key)
