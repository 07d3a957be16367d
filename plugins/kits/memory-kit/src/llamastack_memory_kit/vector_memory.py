"""The base of providers of vector banks: the stack's inference API embeds chunks and queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from llamastack.api.memory_banks import MemoryBank, VectorMemoryBank
from llamastack.api.models import Models
from llamastack.provider import ConflictError, Deps, LlamaStackError
from llamastack_memory_kit.bank_memory import BankMemory
from llamastack_memory_kit.chunk_sizes import chunk_size_advice, joined_advice
from llamastack_memory_kit.embedding import Embedder
from llamastack_memory_kit.records import Bank, ChunkSize
from llamastack_memory_kit.settings import EmbeddingSettings


class VectorMemory(BankMemory):
    """Vector banks. A provider that also keeps other banks widens `bank_types`; only vector banks have embeddings.

    The spec of a provider names `inference` in `api_dependencies` and `models` in `optional_api_dependencies`. Scores
    are cosine similarities, -1 to 1.
    """

    bank_types: ClassVar[tuple[str, ...]] = ("vector",)
    """The types of banks that the provider keeps."""

    def __init__(self, settings: EmbeddingSettings, deps: Deps) -> None:
        """Raises ValueError if the tokenizer file cannot be read."""
        super().__init__(settings, deps)
        self._embedder = Embedder(settings, deps)
        self._models: Models | None = deps.get("models")
        self._advice: dict[str, str | None] = {}

    @property
    def note(self) -> str | None:
        """What people should know about the registered banks, such as chunks that are too long."""
        return joined_advice(advice for name, advice in self._advice.items() if name in self._banks)

    async def register_memory_bank(self, memory_bank: MemoryBank) -> None:
        """As in `BankMemory`; `note` warns if the bank's chunks are longer than its model reads."""
        await super().register_memory_bank(memory_bank)
        if self._models is not None and isinstance(memory_bank, VectorMemoryBank):
            self._advice[memory_bank.identifier] = await chunk_size_advice(memory_bank, self._models)

    async def unregister_memory_bank(self, memory_bank: MemoryBank) -> None:
        """As in `BankMemory`."""
        self._advice.pop(memory_bank.identifier, None)
        await super().unregister_memory_bank(memory_bank)

    def chunk_size(self, bank: Bank) -> ChunkSize:
        """The bank's own; neighbours share a quarter of a chunk if it does not say otherwise."""
        definition = bank.definition
        if not isinstance(definition, VectorMemoryBank):
            return super().chunk_size(bank)
        size, overlap = definition.chunk_size_in_tokens, definition.overlap_size_in_tokens
        return ChunkSize(size, size // 4 if overlap is None else overlap)

    async def dimension(self, definition: MemoryBank) -> int:
        """The length of the vectors of the bank's model. Raises the model's error, with the path of its name."""
        if not isinstance(definition, VectorMemoryBank):
            return await super().dimension(definition)
        try:
            return await self._embedder.dimension(definition.embedding_model)
        except LlamaStackError as error:
            error.amend(param="memory_bank.embedding_model")  # the name's path in the caller's request
            raise

    async def embed(self, bank: Bank, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """One vector per text. Raises ConflictError if they have another dimension than the bank."""
        definition = bank.definition
        if not isinstance(definition, VectorMemoryBank):
            return await super().embed(bank, texts)
        vectors = await self._embedder.embed(definition.embedding_model, texts)
        if vectors:
            await self._check_dimension(bank, definition, vectors[0])
        return vectors

    async def embed_query(self, bank: Bank, text: str) -> Sequence[float]:
        """The vector of a query. Raises ConflictError if it has another dimension than the bank."""
        definition = bank.definition
        if not isinstance(definition, VectorMemoryBank):
            return await super().embed_query(bank, text)
        vector = await self._embedder.embed_query(definition.embedding_model, text)
        await self._check_dimension(bank, definition, vector)
        return vector

    async def _check_dimension(self, bank: Bank, definition: VectorMemoryBank, vector: Sequence[float]) -> None:
        if len(vector) != bank.dimension:
            raise ConflictError(
                f"{await self._embedder.named(definition.embedding_model)} makes vectors of {len(vector)} numbers, but "
                f"memory bank '{bank.identifier}' was made for {bank.dimension}",
                provider_id=self.provider_id,
            )
