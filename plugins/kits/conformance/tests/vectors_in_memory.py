"""A sound provider of vector banks in a dict: every query looks at every chunk."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from llamastack.provider import Api, Capabilities, Deps, RemoteProviderSpec
from llamastack_memory_kit import (
    Bank,
    EmbeddingSettings,
    FoundChunk,
    Insert,
    Query,
    SearchMode,
    StoredChunk,
    VectorMemory,
    matches,
)

VECTORS = RemoteProviderSpec(
    api=Api.memory,
    provider_type="remote::vectors-in-memory",
    description="Vector banks in a dict",
    config_class="llamastack_memory_kit:EmbeddingSettings",
    factory="vectors_in_memory:get_adapter_impl",
    api_dependencies=(Api.inference,),
    optional_api_dependencies=("models",),
    single_process=True,
    capabilities=Capabilities(
        insert_documents="supported",
        query_documents="supported",
        vector_search="supported",
        keyword_search="supported",
        hybrid_search="supported",
        filters="supported",
        delete_documents="supported",
        ttl="supported",
        registration="supported",
        unregister="supported",
    ),
)


class VectorsInMemory(VectorMemory):
    """A document is its chunks and the time when it expires. Words are counted."""

    modes: ClassVar[Mapping[str, Sequence[SearchMode]]] = {"vector": ("vector", "keyword")}
    filters = True
    keyword_scores = "word_count"

    def __init__(self, config: EmbeddingSettings, deps: Deps) -> None:
        super().__init__(config, deps)
        self.made: dict[str, Bank] = {}
        self.kept: dict[str, dict[str, tuple[list[StoredChunk], float | None]]] = {}

    async def list_banks(self) -> list[Bank]:
        return [*self.made.values()]

    async def create_bank(self, bank: Bank) -> None:
        self.made[bank.identifier], self.kept[bank.identifier] = bank, {}

    async def drop_bank(self, bank: Bank) -> None:
        self.made.pop(bank.identifier, None)
        self.kept.pop(bank.identifier, None)

    async def store(self, bank: Bank, insert: Insert) -> None:
        for name in insert.document_ids:
            chunks = [chunk for chunk in insert.chunks if chunk.document_id == name]
            self.kept[bank.identifier][name] = (chunks, insert.expires_at)

    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        words = {*_words(query.text)}
        found = [
            FoundChunk(
                replace(chunk, metadata=copy.deepcopy(chunk.metadata)),
                sum(a * b for a, b in zip(chunk.vector, query.vector, strict=True))
                if query.mode == "vector"
                else sum(word in words for word in _words(chunk.indexed_text)),
            )
            for chunks, expires_at in self.kept[bank.identifier].values()
            for chunk in chunks
            if (expires_at is None or expires_at > query.now)
            and (query.filter is None or matches(query.filter, chunk.metadata))
        ]
        fitting = [each for each in found if query.mode == "vector" or each.score]
        return sorted(fitting, key=lambda each: -each.score)[: query.max_chunks]

    async def delete(self, bank: Bank, document_ids: Sequence[str]) -> None:
        for name in document_ids:
            self.kept[bank.identifier].pop(name, None)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


async def get_adapter_impl(config: EmbeddingSettings, deps: Deps) -> VectorsInMemory:
    return VectorsInMemory(config, deps)
