"""Memory by shared words."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from anyio.lowlevel import checkpoint

from llamastack.api.memory_banks import KeywordMemoryBank, MemoryBank
from llamastack.provider import Deps
from llamastack_memory_kit import Bank, BankMemory, FoundChunk, Insert, Query, StoredChunk, matches
from llamastack_provider_sample.config import SampleMemoryConfig

_BLOCK = 65_536  # characters
_CHUNKS_IN_A_ROW = 500
_SPACE = re.compile(r"\s")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class _Kept:
    chunk: StoredChunk
    words: frozenset[str]
    expires_at: float | None


class SampleMemory(BankMemory):
    """Keyword banks in a dict. A score is the share of the query's words that a chunk has."""

    bank_types: ClassVar[tuple[str, ...]] = ("keyword",)
    filters: ClassVar[bool] = True
    keyword_scores: ClassVar[str] = "share_of_words"

    def __init__(self, config: SampleMemoryConfig, deps: Deps) -> None:
        super().__init__(config, deps)
        self._kept: dict[str, dict[str, list[_Kept]]] = {}  # bank -> document -> chunks

    async def list_banks(self) -> list[Bank]:
        return [Bank(KeywordMemoryBank(identifier=name)) for name in self._kept]

    async def create_bank(self, bank: Bank) -> None:
        self._kept[bank.identifier] = {}

    async def drop_bank(self, bank: Bank) -> None:
        self._kept.pop(bank.identifier, None)

    async def forget_memory_bank(self, memory_bank: MemoryBank) -> None:
        await self.unregister_memory_bank(memory_bank)

    async def store(self, bank: Bank, insert: Insert) -> None:
        documents: dict[str, list[_Kept]] = {document_id: [] for document_id in insert.document_ids}
        for chunk in insert.chunks:
            documents[chunk.document_id].append(_Kept(chunk, await _words(chunk.indexed_text), insert.expires_at))
        self._kept[bank.identifier] |= documents

    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        wanted = await _words(query.text)
        found: list[FoundChunk] = []
        chunks = [kept for document in self._kept[bank.identifier].values() for kept in document]
        for place, kept in enumerate(chunks):
            lives = kept.expires_at is None or kept.expires_at > query.now
            fits = query.filter is None or matches(query.filter, kept.chunk.metadata)
            if wanted & kept.words and lives and fits:
                found.append(FoundChunk(kept.chunk, len(wanted & kept.words) / len(wanted)))
            if place % _CHUNKS_IN_A_ROW == 0:
                await checkpoint()
        best = sorted(found, key=lambda each: (-each.score, each.chunk.document_id))[: query.max_chunks]
        return [FoundChunk(_copied(chunk), score) for chunk, score in best]

    async def delete(self, bank: Bank, document_ids: Sequence[str]) -> None:
        for document_id in document_ids:
            self._kept[bank.identifier].pop(document_id, None)


def _copied(chunk: StoredChunk) -> StoredChunk:
    """A chunk for a caller in this process, who may change its metadata."""
    return replace(chunk, metadata=copy.deepcopy(chunk.metadata))


async def _words(text: str) -> frozenset[str]:
    """The words of a text. Other tasks run in between: a query may have millions of words."""
    found: set[str] = set()
    at = 0
    while at < len(text):
        space = _SPACE.search(text, at + _BLOCK)
        end = space.start() if space is not None else len(text)
        found.update(_WORD.findall(text[at:end].lower()))
        at = end
        await checkpoint()
    return frozenset(found)


async def get_adapter_impl(config: SampleMemoryConfig, deps: Deps) -> SampleMemory:
    return SampleMemory(config, deps)
