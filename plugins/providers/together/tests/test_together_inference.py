"""The provider with a real server behind it, at the paths and with the lists of Together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from backends.openai_checks import OpenAIDialectChecks
from backends.openai_conformance import OpenAIDialectConformance

pytestmark = pytest.mark.anyio


class TestTogether(OpenAIDialectChecks):
    provider_type = "remote::together"
    key_field = "together_api_key"
    top_logprobs = False

    def listing(self, models: Sequence[str]) -> Any:
        """A bare list, of models of every kind."""
        listed = [{"id": name, "object": "model", "type": "chat", "context_length": 2048} for name in models]
        return [*listed, {"id": "black-forest-labs/FLUX.1", "object": "model", "type": "image"}]


class TestTogetherConformance(OpenAIDialectConformance):
    provider_type = "remote::together"
    differences = TestTogether
