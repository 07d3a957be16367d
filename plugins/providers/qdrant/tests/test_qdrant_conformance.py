"""The conformance suite for an embedded Qdrant. Its other tests embed by the real model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamastack_conformance import MemoryConformance


class TestQdrantConformance(MemoryConformance):
    provider_type = "remote::qdrant"

    @pytest.fixture(scope="class")
    @classmethod
    def llamastack_config(cls, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
        folder: Path = tmp_path_factory.mktemp("qdrant")
        bank = {
            "identifier": "notes",
            "type": "vector",
            "embedding_model": "hashed-words",
            "chunk_size_in_tokens": 64,
        }
        return {
            "providers": {
                "inference": [{"provider_id": "embed", "provider_type": "test-embeddings"}],
                "memory": [
                    {
                        "provider_id": "docs",
                        "provider_type": cls.provider_type,
                        "config": {"path": str(folder / "first")},
                    }
                ],
            },
            # A folder is for one process and one client alone.
            "x-conformance": {"objects": [bank], "second": {"path": str(folder / "second")}, "many_objects": 12},
        }
