"""The provider with a real server behind it."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from backends.openai_checks import OpenAIDialectChecks, limit
from backends.openai_conformance import OpenAIDialectConformance

pytestmark = pytest.mark.anyio


class TestOpenAI(OpenAIDialectChecks):
    provider_type = "remote::openai"
    key_field = "openai_api_key"
    top_k = repetition_penalty = None


class TestAnotherServer(OpenAIDialectChecks):
    """One that has fields that OpenAI lacks."""

    provider_type = "remote::openai"
    key_field = "openai_api_key"
    repetition_penalty = "repeat_penalty"
    config: ClassVar[dict[str, str]] = {"top_k_field": "top_k", "repetition_penalty_field": "repeat_penalty"}

    async def test_max_tokens_by_another_name(self, started: Any) -> None:
        async with started(max_tokens_field="max_completion_tokens") as running:
            body = await running.body_of(sampling_params=limit(3))
            assert body["max_completion_tokens"] == 3
            assert "max_tokens" not in body


class TestLlamaCppServer(OpenAIDialectChecks):
    """A preset, before the server that it is for."""

    provider_type = "remote::llama-cpp"
    key_field = "llama_cpp_api_key"
    repetition_penalty = "repeat_penalty"


class TestOpenAIConformance(OpenAIDialectConformance):
    provider_type = "remote::openai"
    differences = TestOpenAI
    parallel_calls = 50
