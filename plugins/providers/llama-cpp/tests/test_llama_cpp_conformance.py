"""The conformance suite for the provider with its real default model, on one thread."""

from __future__ import annotations

from typing import Any, ClassVar

from backends.llama_model import default_model

from llamastack_conformance import InferenceConformance

CHAT, EMBEDDER = "SmolLM2-135M-Instruct", "embedder"


def models() -> list[dict[str, Any]]:
    """The default model, for text and, under another name, for embeddings."""
    smol = default_model()
    embedder = {"identifier": EMBEDDER, "embedding": True, "pooling": "mean", "chat_template": None}
    return [smol.model_dump(mode="json"), smol.model_copy(update=embedder).model_dump(mode="json")]


class TestLlamaCppConformance(InferenceConformance):
    provider_type = "llama-cpp"
    config: ClassVar[dict[str, Any]] = {
        "providers": {
            "inference": [
                {
                    "provider_id": "local",
                    "provider_type": "llama-cpp",
                    "config": {"models": models(), "threads": 1, "context_length": 512, "parallel": 4},
                }
            ]
        },
        "x-conformance": {"chat_model": CHAT, "embedding_model": EMBEDDER, "parallel_calls": 8, "many_texts": 35},
    }
