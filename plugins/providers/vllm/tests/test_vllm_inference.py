"""The remote provider with a real server behind it: llama.cpp's, which passes over the fields that vLLM alone has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from backends.llama_server import MODEL
from backends.openai_checks import OpenAIDialectChecks, Running, limit
from backends.openai_conformance import OpenAIDialectConformance

pytestmark = pytest.mark.anyio


class TestRemoteVLLM(OpenAIDialectChecks):
    provider_type = "remote::vllm"
    key_field = "vllm_api_key"
    completion_schema = True

    def listing(self, models: Sequence[str]) -> Any:
        """As vLLM lists them."""
        listed = [
            {"id": name, "object": "model", "owned_by": "vllm", "root": name, "parent": None, "max_model_len": 2048}
            for name in models
        ]
        return {"object": "list", "data": listed}

    async def test_the_context_length(self, running: Running) -> None:
        assert (await running.stack.models.get_model(identifier=MODEL)).metadata == {"context_length": 2048}

    async def test_a_strategy_means_its_own_sampler_alone(self, running: Running) -> None:
        assert (await running.body_of(sampling_params=limit(2, strategy="top_p", top_p=0.5)))["top_k"] == -1
        assert (await running.body_of(sampling_params=limit(2, strategy="top_k", top_k=5)))["top_p"] == 1.0


class TestRemoteVLLMConformance(OpenAIDialectConformance):
    provider_type = "remote::vllm"
    differences = TestRemoteVLLM
