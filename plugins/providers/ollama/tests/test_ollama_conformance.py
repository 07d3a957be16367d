"""The conformance suite against the stand-in of Ollama, over llama.cpp's engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from backends.llama_server import LlamaServer
from backends.ollama import VERSION, ollama_stand_in
from backends.ollama_models import CHAT, EMBEDDER, SEEING

from llamastack_conformance import InferenceConformance


class TestOllamaConformance(InferenceConformance):
    provider_type = "remote::ollama"

    @pytest.fixture(scope="class")
    @classmethod
    def llamastack_config(cls, llama: LlamaServer) -> Iterator[dict[str, Any]]:
        with ollama_stand_in(llama) as (_, url):
            provider = {
                "provider_id": "ollama",
                "provider_type": cls.provider_type,
                "config": {"url": url, "allow_pull": True},
            }
            settings = {
                "chat_model": CHAT,
                "embedding_model": EMBEDDER,
                "image_model": SEEING,
                "objects": [{"identifier": "tiny"}],
                "backend_version": VERSION,
                "many_texts": 35,
                "parallel_calls": 8,
            }
            yield {"providers": {"inference": [provider]}, "x-conformance": settings}
