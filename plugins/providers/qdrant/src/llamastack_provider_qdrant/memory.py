"""The provider: vector memory banks, one Qdrant collection each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast

from pydantic import ValidationError
from qdrant_client import models

from llamastack.api.memory_banks import MemoryBank, VectorMemoryBank
from llamastack.provider import ConflictError, Deps, NotFoundError
from llamastack_memory_kit import Bank, FoundChunk, Insert, Query, StagedStorage, StoredChunk, VectorMemory
from llamastack_provider_qdrant import points
from llamastack_provider_qdrant.backend import make_backend
from llamastack_provider_qdrant.config import QdrantConfig

logger = logging.getLogger(__name__)

_ROUNDING = 1e-5


class QdrantMemory(StagedStorage, VectorMemory):
    """The memory provider. A bank is a collection; scores are cosine similarities."""

    def __init__(self, config: QdrantConfig, deps: Deps) -> None:
        """Raises ValueError if the tokenizer file cannot be read."""
        super().__init__(config, deps)
        self._config = config
        self._backend = make_backend(config, deps.provider_id)
        self._is_open = False

    async def open(self) -> None:
        """Open the folder, or make the client. No request is sent to a server yet.

        Raises ProviderUnavailableError when the folder is in use or cannot be written.
        """
        if not self._is_open:
            await self._backend.open()
            self._is_open = True

    async def close(self) -> None:
        """Close the folder or the client."""
        self._is_open = False
        await self._backend.close()

    async def health(self) -> None:
        """Send Qdrant a request. Raises ProviderUnavailableError, ProviderTimeoutError ... if it does not answer."""
        await self._backend.call("get_collections")

    async def list_banks(self) -> list[Bank]:
        """The banks in the collections with the prefix, including those of other processes."""
        found = await self._backend.call("get_collections")
        names = sorted(c.name for c in found.collections if c.name.startswith(self._config.collection_prefix))
        banks = [await self._read_bank(name) for name in names]
        return [bank for bank in banks if bank is not None]

    async def find_bank(self, identifier: str) -> Bank | None:
        """The bank in its collection; None if the collection belongs to something else."""
        return await self._read_bank(self._collection(identifier))

    async def create_bank(self, bank: Bank) -> None:
        """Make the bank's collection. Raises ConflictError if a collection of this name is not a bank."""
        name = self._collection(bank.identifier)
        try:
            await self._backend.call(
                "create_collection",
                collection_name=name,
                vectors_config=models.VectorParams(size=bank.dimension, distance=models.Distance.COSINE),
                metadata=points.to_metadata(bank.definition),
            )
        except ConflictError:
            # Another process on the same server made it first; the caller compares the definitions.
            logger.info("another process made collection %s", name)
        if await self._read_bank(name) is None:
            raise ConflictError(
                f"collection '{name}' does not belong to this provider, or the server is older than 1.16 and keeps no "
                "metadata",
                provider_id=self.provider_id,
            )

    async def register_memory_bank(self, memory_bank: MemoryBank) -> None:
        """As in `VectorMemory`, with the indexes of the collection."""
        await super().register_memory_bank(memory_bank)
        if self._backend.has_indexes:
            # An existing bank needs them too: an earlier registration may have stopped before this step.
            name = self._collection(memory_bank.identifier)
            for field, schema in points.INDEXES.items():
                await self._backend.call(
                    "create_payload_index", collection_name=name, field_name=field, field_schema=schema
                )

    async def drop_bank(self, bank: Bank) -> None:
        """Delete the collection."""
        await self._on(bank, "delete_collection")

    async def stage(self, bank: Bank, insert: Insert, chunks: Sequence[StoredChunk]) -> None:
        """Write pending points."""
        await self._on(bank, "upsert", points=[points.to_point(chunk, insert) for chunk in chunks])

    async def publish(self, bank: Bank, insert: Insert) -> None:
        """Show the pending points, then remove those that they replace."""
        await self._on(bank, "batch_update_points", update_operations=points.completing(insert))

    async def discard(self, bank: Bank, insert: Insert) -> None:
        """Remove the pending points."""
        selector = models.FilterSelector(filter=points.pending_of(insert.generation))
        await self._on(bank, "delete", points_selector=selector)

    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        """The most similar points that are complete and have not expired."""
        found = await self._on(
            bank,
            "query_points",
            query=list(query.vector),
            query_filter=points.findable(query.now),
            limit=query.max_chunks,
            # Qdrant rounds a threshold to 32 bits; the kit compares it with the scores themselves.
            score_threshold=None if query.score_threshold is None else query.score_threshold - _ROUNDING,
        )
        return [FoundChunk(points.to_chunk(point.payload), point.score) for point in found.points]

    async def delete(self, bank: Bank, document_ids: Sequence[str]) -> None:
        """Remove the complete points of the documents."""
        selector = models.FilterSelector(filter=points.of_documents(document_ids))
        await self._on(bank, "delete", points_selector=selector)

    def _collection(self, identifier: str) -> str:
        return points.collection_name(self._config.collection_prefix, identifier)

    async def _read_bank(self, collection: str) -> Bank | None:
        """The bank in `collection`; None if there is none or the collection belongs to something else."""
        try:
            info: models.CollectionInfo = await self._backend.call("get_collection", collection_name=collection)
        except NotFoundError:
            return None
        definition = (info.config.metadata or {}).get(points.DEFINITION_KEY)
        if definition is None:
            return None
        try:
            read = VectorMemoryBank.model_validate(definition)
        except ValidationError as error:
            logger.warning("collection %s has a definition that cannot be read: %s", collection, error)
            return None
        return Bank(read, cast(models.VectorParams, info.config.params.vectors).size)

    async def _on(self, bank: Bank, method: str, **arguments: Any) -> Any:
        return await self._backend.call(method, collection_name=self._collection(bank.identifier), **arguments)


async def get_adapter_impl(config: QdrantConfig, deps: Deps) -> QdrantMemory:
    """Make the provider; `initialize` opens it."""
    return QdrantMemory(config, deps)
