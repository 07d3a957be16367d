"""The conformance suite for the provider with its real model."""

from __future__ import annotations

from typing import Any, ClassVar

from llamastack_conformance import InferenceConformance


class TestSentenceEmbeddingsConformance(InferenceConformance):
    provider_type = "sentence-embeddings"
    config: ClassVar[dict[str, Any]] = {
        "providers": {"inference": [{"provider_id": "embed", "provider_type": "sentence-embeddings"}]}
    }
