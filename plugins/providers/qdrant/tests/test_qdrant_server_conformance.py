"""The conformance suite for Qdrant's HTTP API. The server is the embedded Qdrant behind that API, not a real one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from backends.qdrant_stand_in import qdrant_handler, serve
from qdrant_client import QdrantClient

from llamastack_conformance import MemoryConformance
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_provider_qdrant.points import collection_name


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
class TestQdrantServerConformance(MemoryConformance):
    provider_type = "remote::qdrant"
    client: ClassVar[QdrantClient]

    @pytest.fixture(scope="class")
    @classmethod
    def llamastack_config(cls) -> Iterator[dict[str, Any]]:
        bank = {
            "identifier": "notes",
            "type": "vector",
            "embedding_model": "hashed-words",
            "chunk_size_in_tokens": 64,
        }
        cls.client = QdrantClient(location=":memory:", force_disable_check_same_thread=True)
        with serve(qdrant_handler(cls.client)) as url:
            yield {
                "providers": {
                    "inference": [{"provider_id": "embed", "provider_type": "test-embeddings"}],
                    "memory": [
                        {"provider_id": "docs", "provider_type": cls.provider_type, "config": {"url": url}},
                    ],
                },
                "x-conformance": {"objects": [bank], "second": {"collection_prefix": "second-"}, "many_objects": 12},
            }

    async def remove_behind_its_back(self, subject: Subject, running: Running, item: Any) -> None:
        self.client.delete_collection(collection_name("llamastack_", item.identifier))
