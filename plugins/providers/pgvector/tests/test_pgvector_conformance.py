"""The conformance suite for a real PostgreSQL server with pgvector."""

from __future__ import annotations

from typing import Any

import pytest

from llamastack_conformance import MemoryConformance


class TestPgvectorConformance(MemoryConformance):
    provider_type = "remote::pgvector"

    @pytest.fixture(scope="class")
    @classmethod
    def llamastack_config(cls, url: str) -> dict[str, Any]:
        bank = {"identifier": "notes", "type": "vector", "embedding_model": "hashed-words", "chunk_size_in_tokens": 64}
        return {
            "providers": {
                "inference": [{"provider_id": "embed", "provider_type": "test-embeddings"}],
                "memory": [{"provider_id": "docs", "provider_type": cls.provider_type, "config": {"url": url}}],
            },
            "x-conformance": {
                # The suite's proxy speaks HTTP.
                "backend_url_field": "none",
                "objects": [bank],
                "second": {"schema_name": "second"},
                "many_objects": 12,
            },
        }
