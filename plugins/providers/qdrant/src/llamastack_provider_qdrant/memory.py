"""The provider: vector memory banks, one Qdrant collection each."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import anyio.to_thread
from pydantic import ValidationError
from qdrant_client import models

from llamastack.api.memory_banks import MemoryBank, VectorMemoryBank
from llamastack.provider import ConflictError, Deps, NotFoundError, NotSupportedError
from llamastack_memory_kit import (
    Bank,
    FoundChunk,
    Insert,
    Query,
    SearchMode,
    StagedStorage,
    StoredChunk,
    VectorMemory,
    matches,
)
from llamastack_provider_qdrant import points
from llamastack_provider_qdrant.backend import make_backend
from llamastack_provider_qdrant.config import QdrantConfig
from llamastack_provider_qdrant.filtering import NUMBERS, TERMS
from llamastack_provider_qdrant.words import WORDS, query_words

logger = logging.getLogger(__name__)

_ROUNDING = 1e-5
_MORE = 8
"""How many times more is asked for if too much does not fit a filter."""


class QdrantMemory(StagedStorage, VectorMemory):
    """The memory provider. A bank is a collection; scores are cosine similarities, those of words BM25."""

    modes: ClassVar[Mapping[str, Sequence[SearchMode]]] = {"vector": ("vector", "keyword")}
    filters: ClassVar[bool] = True

    def __init__(self, config: QdrantConfig, deps: Deps) -> None:
        """Raises ValueError if the tokenizer file cannot be read."""
        super().__init__(config, deps)
        self._config = config
        self._backend = make_backend(config, deps.provider_id)
        self._is_open = False
        self._without_words: set[str] = set()
        """Banks that were made before there were sparse vectors and fields for filters."""

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
                sparse_vectors_config={WORDS: models.SparseVectorParams(modifier=models.Modifier.IDF)},
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
        usual = None if bank.identifier in self._without_words else self.chunk_size(bank).size
        made = await anyio.to_thread.run_sync(lambda: [points.to_point(chunk, insert, usual) for chunk in chunks])
        await self._on(bank, "upsert", points=made)

    async def publish(self, bank: Bank, insert: Insert) -> None:
        """Show the pending points, then remove those that they replace."""
        await self._on(bank, "batch_update_points", update_operations=points.completing(insert))

    async def discard(self, bank: Bank, insert: Insert) -> None:
        """Remove the pending points."""
        selector = models.FilterSelector(filter=points.pending_of(insert.generation))
        await self._on(bank, "delete", points_selector=selector)

    async def search(self, bank: Bank, query: Query) -> Sequence[FoundChunk]:
        """The best chunks that are complete and have not expired.

        Raises NotSupportedError for words or filters in a bank that was made before there were sparse vectors.
        """
        return (await self._search(bank, [query]))[0]

    async def search_both(self, bank: Bank, query: Query) -> tuple[Sequence[FoundChunk], Sequence[FoundChunk]]:
        """What the vector and what the words of a query find, in one request."""
        by_vector, by_keyword = await self._search(bank, [query, replace(query, mode="keyword")])
        return by_vector, by_keyword

    async def _search(self, bank: Bank, queries: Sequence[Query]) -> list[list[FoundChunk]]:
        found: list[list[FoundChunk]] = [[] for _ in queries]
        open_places = [place for place, query in enumerate(queries) if self._has_answer(bank, query)]
        limits = [query.max_chunks for query in queries]
        while open_places:
            requests = [self._request(queries[place], limits[place]) for place in open_places]
            replies = await self._on(bank, "query_batch_points", requests=requests)
            again = []
            for place, reply in zip(open_places, replies, strict=True):
                query, limit = queries[place], limits[place]
                chunks = [FoundChunk(points.to_chunk(point.payload), point.score) for point in reply.points]
                fit = [each for each in chunks if query.filter is None or matches(query.filter, each.chunk.metadata)]
                found[place] = fit[: query.max_chunks]
                # Some filters let too much through; then ask for more until there is enough, or no more.
                if len(chunks) == limit and len(fit) < query.max_chunks:
                    limits[place] = limit * _MORE
                    again.append(place)
            open_places = again
        return found

    def _has_answer(self, bank: Bank, query: Query) -> bool:
        """Whether the query must be sent at all. Raises NotSupportedError if the bank is too old for it."""
        if bank.identifier in self._without_words and (query.mode == "keyword" or query.filter is not None):
            what = "mode 'keyword' and 'hybrid'" if query.filter is None else "'filters'"
            raise NotSupportedError(
                f"memory bank '{bank.identifier}' was made before this provider had {what}; register a new bank and "
                "insert its documents there",
                provider_id=self.provider_id,
                param="params.mode" if query.filter is None else "params.filters",
            )
        return query.mode == "vector" or bool(query_words(query.text).indices)

    def _request(self, query: Query, limit: int) -> models.QueryRequest:
        of_words = query.mode == "keyword"
        return models.QueryRequest(
            query=query_words(query.text) if of_words else list(query.vector),
            using=WORDS if of_words else None,
            filter=points.findable(query.now, query.filter),
            limit=limit,
            # Qdrant rounds a threshold to 32 bits; the kit compares it with the scores themselves.
            score_threshold=None if query.score_threshold is None else query.score_threshold - _ROUNDING,
            with_payload=models.PayloadSelectorExclude(exclude=[TERMS, NUMBERS]),
        )

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
        if WORDS in (info.config.params.sparse_vectors or {}):
            self._without_words.discard(read.identifier)
        else:
            self._without_words.add(read.identifier)
        return Bank(read, cast(models.VectorParams, info.config.params.vectors).size)

    async def _on(self, bank: Bank, method: str, **arguments: Any) -> Any:
        return await self._backend.call(method, collection_name=self._collection(bank.identifier), **arguments)


async def get_adapter_impl(config: QdrantConfig, deps: Deps) -> QdrantMemory:
    """Make the provider; `initialize` opens it."""
    return QdrantMemory(config, deps)
