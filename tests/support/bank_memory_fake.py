"""Memory banks in lists and embeddings in numbers, which fail or wait where a test says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anyio

from llamastack.api import EmbeddingsResponse, MemoryBankDocument, VectorMemoryBank
from llamastack.api.models import Model
from llamastack.provider import (
    BackendError,
    Deps,
    NotFoundError,
)
from llamastack_memory_kit import (
    Bank,
    EmbeddingSettings,
    FoundChunk,
    Insert,
    Query,
    StagedStorage,
    StoredChunk,
    VectorMemory,
)

BANK = VectorMemoryBank(identifier="b", embedding_model="m", chunk_size_in_tokens=2, overlap_size_in_tokens=0)


class Failures:
    """Fails or blocks at one call of many, before or after it took effect."""

    def __init__(self, at: int = -1, *, after: bool = False, blocks: bool = False) -> None:
        self.calls = 0
        self._at = at
        self._after = after
        self._blocks = blocks
        self.reached = anyio.Event()

    async def around(self, effect: Callable[[], Any]) -> Any:
        self.calls += 1
        fails = self.calls - 1 == self._at
        if fails and not self._after:
            await self._fail()
        await anyio.lowlevel.checkpoint()
        done = effect()
        if fails:
            await self._fail()
        return done

    async def _fail(self) -> None:
        self.reached.set()
        if self._blocks:
            await anyio.sleep_forever()
        raise BackendError("the disk is full")


class Embeddings:
    """Scripted vectors: the number in each text. `spoil` changes a reply."""

    def __init__(self) -> None:
        self.failures = Failures()
        self.spoil: Callable[[list[list[float]]], list[list[float]]] = lambda vectors: vectors
        self.running = self.most = 0

    async def embeddings(self, model: str, contents: Sequence[Any]) -> EmbeddingsResponse:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            numbers = [float(sum(map(ord, str(text)))) for text in contents]
            await anyio.sleep(0.001 * (len(contents) % 3))
            return await self.failures.around(
                lambda: EmbeddingsResponse(embeddings=self.spoil([[number, 1.0] for number in numbers]))
            )
        finally:
            self.running -= 1

    async def get_model(self, identifier: str) -> Model:
        return Model(identifier=identifier, provider_id="embedder")


class Kept(VectorMemory):
    """Banks in lists, with one call of the backend for each change."""

    bank_types = ("vector", "keyword")

    def __init__(self, config: EmbeddingSettings, deps: Deps) -> None:
        super().__init__(config, deps)
        self.failures = Failures()
        self.banks: dict[str, Bank] = {}
        self.chunks: dict[str, list[StoredChunk]] = {}

    async def list_banks(self) -> list[Bank]:
        return [*self.banks.values()]

    async def create_bank(self, bank: Bank) -> None:
        self.banks[bank.identifier] = bank
        self.chunks[bank.identifier] = []

    async def drop_bank(self, bank: Bank) -> None:
        del self.banks[bank.identifier], self.chunks[bank.identifier]

    def _rest(self, bank: Bank, document_ids: Sequence[str]) -> list[StoredChunk]:
        if bank.identifier not in self.chunks:
            raise NotFoundError("no such bank")
        return [chunk for chunk in self.chunks[bank.identifier] if chunk.document_id not in document_ids]

    async def store(self, bank: Bank, insert: Insert) -> None:
        rest = self._rest(bank, insert.document_ids)
        await self.failures.around(lambda: self.chunks.update({bank.identifier: [*rest, *insert.chunks]}))

    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        return [FoundChunk(chunk, chunk.vector[0] if chunk.vector else 0.0) for chunk in self._rest(bank, ())]

    async def delete(self, bank: Bank, document_ids: Sequence[str]) -> None:
        self.chunks[bank.identifier] = self._rest(bank, document_ids)


class Staged(StagedStorage, Kept):
    """The same without transactions: pending chunks, by their generation."""

    chunks_per_write = 2

    def __init__(self, config: EmbeddingSettings, deps: Deps) -> None:
        super().__init__(config, deps)
        self.pending: dict[int, list[StoredChunk]] = {}
        self.was_publishing = False

    async def stage(self, bank: Bank, insert: Insert, chunks: Sequence[StoredChunk]) -> None:
        assert len(chunks) <= self.chunks_per_write
        await self.failures.around(lambda: self.pending.setdefault(insert.generation, []).extend(chunks))

    async def publish(self, bank: Bank, insert: Insert) -> None:
        def show() -> None:
            rest = self._rest(bank, insert.document_ids)
            self.chunks[bank.identifier] = [*rest, *self.pending.pop(insert.generation, [])]

        self.was_publishing = True
        await self.failures.around(show)
        self.was_publishing = False

    async def discard(self, bank: Bank, insert: Insert) -> None:
        self.pending.pop(insert.generation, None)


async def start(kind: type[Kept] = Kept, **config: Any) -> tuple[Kept, Embeddings]:
    embeddings = Embeddings()
    deps = Deps(provider_id="docs", apis={"inference": embeddings, "models": embeddings})
    memory = kind(EmbeddingSettings(**config), deps)
    await memory.initialize()
    await memory.register_memory_bank(BANK)
    return memory, embeddings


def documents(**texts: str) -> list[MemoryBankDocument]:
    return [MemoryBankDocument(document_id=name, content=text, metadata={"of": name}) for name, text in texts.items()]


def stored(memory: Kept) -> dict[str, str]:
    """The text of each document that is stored."""
    found: dict[str, str] = {}
    for chunk in memory.chunks["b"]:
        found[chunk.document_id] = f"{found.get(chunk.document_id, '')} {chunk.content}".strip()
    return found
