"""Inference by Together AI.

API: https://docs.together.ai/reference/chat-completions-1
"""

from __future__ import annotations

from llamastack.api.models import Model
from llamastack.provider import Deps
from llamastack_adapters.openai_dialect import Dialect, OpenAIInference
from llamastack_provider_together.config import TogetherConfig

_GENERATES_OR_EMBEDS = {"chat", "code", "embedding", "language"}


class TogetherInference(OpenAIInference):
    """Together lists models of every kind, and takes the number of log probabilities in `logprobs`."""

    key_field = "together_api_key"

    async def served(self) -> list[Model]:
        entries = await self.listed(f"{self.api_path}/models")
        # A user's own model, fine-tuned or on a dedicated endpoint, may have no type.
        return self.models_of(entry for entry in entries if entry.get("type", "chat") in _GENERATES_OR_EMBEDS)


async def get_adapter_impl(config: TogetherConfig, deps: Deps) -> TogetherInference:
    """The provider; nothing is opened before its first call."""
    dialect = Dialect(
        deps.provider_id,
        top_k="top_k",
        repetition_penalty="repetition_penalty",
        top_logprobs=False,
        samplers=Dialect.SAMPLERS,
    )
    return TogetherInference(config, deps, dialect, url=config.url, key=config.api_key)
