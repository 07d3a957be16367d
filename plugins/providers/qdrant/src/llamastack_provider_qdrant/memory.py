"""The provider: vector memory banks, one Qdrant collection each."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any, cast

import anyio
import anyio.to_thread
import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from qdrant_client import models

from llamastack.api.common import InterleavedTextMedia, text_of
from llamastack.api.inference import Inference
from llamastack.api.memory import MemoryBankDocument, QueryDocumentsResponse
from llamastack.api.memory_banks import MemoryBank, VectorMemoryBank
from llamastack.api.models import Models
from llamastack.http.answer_limits import AnswerLimits
from llamastack.provider import (
    ConflictError,
    Deps,
    InvalidRequestError,
    LlamaStackError,
    NotFoundError,
    ObjectNotFoundError,
    ProviderUnavailableError,
    UnsupportedMemoryBankError,
)
from llamastack.provider.validation import invalid_request
from llamastack_adapters.http_client import http_client
from llamastack_memory_kit.chunk_sizes import chunk_size_advice, joined_advice
from llamastack_memory_kit.documents import ExtractionLimits, document_text
from llamastack_provider_qdrant import points
from llamastack_provider_qdrant.backend import make_backend
from llamastack_provider_qdrant.chunking import Chunk, Chunker
from llamastack_provider_qdrant.config import QdrantConfig
from llamastack_provider_qdrant.points import Bank

logger = logging.getLogger(__name__)

_POINTS_PER_CALL = 256
_CLEAN_UP_SECONDS = 5
_MARGIN_BYTES = 2**20  # lets a document over the limit be reported as too large
_LONGEST_TTL_SECONDS = 10**10


class _QueryParams(BaseModel):
    model_config = ConfigDict(extra="forbid")

    max_chunks: Annotated[int, Field(strict=True, ge=1, le=1000)] = 3
    score_threshold: Annotated[float | None, Field(strict=True, allow_inf_nan=False)] = None


class _Query(BaseModel):
    """Prefixes the paths in errors with `params.`."""

    params: _QueryParams


class QdrantMemory:
    """The memory provider. Documents are embedded by the stack's inference API."""

    def __init__(self, config: QdrantConfig, deps: Deps) -> None:
        """Raises ValueError if the tokenizer file cannot be read."""
        self._config = config
        self._provider_id = deps.provider_id
        self._inference: Inference = deps["inference"]
        self._backend = make_backend(config, deps.provider_id)
        self._chunker = Chunker(config.tokenizer)
        self._http: httpx.AsyncClient | None = None
        self._models: Models | None = deps.get("models")
        self._banks: dict[str, Bank] = {}
        self._advice: dict[str, str | None] = {}
        self._registering = anyio.Lock()
        self._writing: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)
        self._last_generation = 0

    async def initialize(self) -> None:
        """Open the folder, or make the client. No request is sent to a server yet.

        Raises ProviderUnavailableError when the folder is in use or cannot be written.
        """
        if self._http is None:
            await self._backend.open()
            limits = AnswerLimits(response_bytes=self._config.max_document_bytes + _MARGIN_BYTES)
            self._http = http_client(timeout=self._config.fetch_timeout, answer_limits=limits)

    async def shutdown(self) -> None:
        """Close everything; safe to call twice."""
        client, self._http = self._http, None
        if client is not None:
            await client.aclose()
        await self._backend.close()

    async def health(self) -> None:
        """Send Qdrant a request. Raises ProviderUnavailableError, ProviderTimeoutError ... if it does not answer."""
        await self._backend.call("get_collections")

    @property
    def note(self) -> str | None:
        """What people should know about the registered banks, such as chunks that are too long."""
        return joined_advice(advice for name, advice in self._advice.items() if name in self._banks)

    async def list_memory_banks(self) -> list[MemoryBank]:
        """The banks that are in Qdrant now, including those of other processes."""
        found = await self._backend.call("get_collections")
        names = sorted(c.name for c in found.collections if c.name.startswith(self._config.collection_prefix))
        banks: dict[str, Bank] = {}
        for name in names:
            bank = await self._read_bank(name)
            if bank is not None:
                banks[bank.definition.identifier] = bank
        self._banks = banks
        return [bank.definition for bank in banks.values()]

    async def register_memory_bank(self, memory_bank: MemoryBank) -> None:
        """Make the bank's collection, or find the existing one.

        Raises UnsupportedMemoryBankError if the bank is not of type `vector`, ConflictError if it exists with another
        definition, and the error of the embedding model if it cannot be used. After an error nothing is made.
        """
        if not isinstance(memory_bank, VectorMemoryBank):
            raise UnsupportedMemoryBankError(
                memory_bank.identifier,
                reason=f"qdrant keeps banks of type 'vector', not '{memory_bank.type}'",
                provider_id=self._provider_id,
            )
        async with self._registering:
            name = points.collection_name(self._config.collection_prefix, memory_bank.identifier)
            bank = await self._read_bank(name)
            if bank is None:
                bank = await self._make_bank(memory_bank, name)
            if not points.same_definition(bank.definition, memory_bank):
                raise ConflictError(
                    f"memory bank '{memory_bank.identifier}' already exists with another definition: "
                    f"{bank.definition.model_dump_json(exclude={'provider_id', 'unavailable_reason'})}",
                    provider_id=self._provider_id,
                )
            if self._backend.has_indexes:
                # An existing bank needs it too: an earlier registration may have stopped before this step.
                for field, schema in points.INDEXES.items():
                    await self._backend.call(
                        "create_payload_index", collection_name=name, field_name=field, field_schema=schema
                    )
            self._banks[memory_bank.identifier] = bank
            if self._models is not None:
                self._advice[memory_bank.identifier] = await chunk_size_advice(memory_bank, self._models)

    async def unregister_memory_bank(self, memory_bank: MemoryBank) -> None:
        """Delete the bank with all its documents.

        Ignores a missing bank. A bank with another definition stays: someone registered it again in the meantime.
        """
        async with self._registering, self._writing[memory_bank.identifier]:
            self._banks.pop(memory_bank.identifier, None)
            self._advice.pop(memory_bank.identifier, None)
            bank = await self._read_bank(points.collection_name(self._config.collection_prefix, memory_bank.identifier))
            if bank is not None and points.same_definition(bank.definition, memory_bank):
                await self._backend.call("delete_collection", collection_name=bank.collection)

    async def insert_documents(
        self, bank_id: str, documents: list[MemoryBankDocument], ttl_seconds: int | None = None
    ) -> None:
        """Store documents. A document with a known `document_id` replaces the earlier one, which queries find until
        then.

        All documents are fetched, split and embedded before the first chunk is written. Queries find the new chunks
        only when all are written. A document without text has no chunks. `ttl_seconds` starts at the end of embedding.

        Raises ObjectNotFoundError for an unknown bank; InvalidRequestError, with `param` `documents[i]...`, for a
        duplicate id and for content that is not text, is too large, or cannot be fetched; ConflictError if the
        embedding model makes vectors of another dimension than before.
        """
        bank = await self._bank(bank_id)
        if not documents:
            return
        places: dict[str, int] = {}
        for place, document in enumerate(documents):
            if places.setdefault(document.document_id, place) != place:
                raise InvalidRequestError(
                    f"documents[{place}].document_id: '{document.document_id}' is also the id "
                    f"of documents[{places[document.document_id]}]",
                    param=f"documents[{place}].document_id",
                    provider_id=self._provider_id,
                )
        pieces: list[tuple[MemoryBankDocument, int, Chunk]] = []
        for place, document in enumerate(documents):
            text = await self._text(document, f"documents[{place}].content")
            size = bank.definition.chunk_size_in_tokens
            chunks = await anyio.to_thread.run_sync(self._chunker.split, text, size, bank.overlap)
            pieces += [(document, index, chunk) for index, chunk in enumerate(chunks)]
        vectors = await self._embed(bank, [chunk.text for _, _, chunk in pieces])
        async with self._writing[bank_id]:
            # The bank may have been unregistered, and even registered again, in the meantime.
            if await self._bank(bank_id) != bank:
                raise ConflictError(
                    f"memory bank '{bank_id}' was replaced during the insert", provider_id=self._provider_id
                )
            now = time.time()
            generation = self._last_generation = max(self._last_generation + 1, int(now * 1e6))
            expires_at = None if ttl_seconds is None else now + min(ttl_seconds, _LONGEST_TTL_SECONDS)
            written = [
                points.to_point(document, index, chunk, vector, generation=generation, expires_at=expires_at)
                for (document, index, chunk), vector in zip(pieces, vectors, strict=True)
            ]
            await self._write(bank, written, generation)
            # A failure is not undone: if Qdrant has completed the update, undoing it would delete the documents.
            operations = points.completing(generation, places, now)
            await self._on(bank, "batch_update_points", update_operations=operations)

    async def query_documents(
        self, bank_id: str, query: InterleavedTextMedia, params: dict[str, Any] | None = None
    ) -> QueryDocumentsResponse:
        """The chunks most similar to `query`; `scores` are cosine similarities, -1 to 1, the best first.

        params: `max_chunks`, 1 to 1000, default 3; `score_threshold`, the lowest score.

        Raises ObjectNotFoundError for an unknown bank, InvalidRequestError for invalid params and for images.
        """
        try:
            wanted = _Query.model_validate({"params": params or {}}).params
        except ValidationError as error:
            raise invalid_request(error, _Query, provider_id=self._provider_id) from None
        bank = await self._bank(bank_id)
        parts = query if isinstance(query, list) else [query]
        if not all(isinstance(part, str) for part in parts):
            raise InvalidRequestError(
                "query: a query cannot contain images", param="query", provider_id=self._provider_id
            )
        (vector,) = await self._embed(bank, [text_of(query)])
        found = await self._on(
            bank,
            "query_points",
            query=vector,
            query_filter=points.findable(time.time()),
            limit=wanted.max_chunks,
            score_threshold=wanted.score_threshold,
        )
        return QueryDocumentsResponse(
            chunks=[points.to_chunk(point.payload) for point in found.points],
            scores=[point.score for point in found.points],
        )

    async def delete_documents(self, bank_id: str, document_ids: list[str]) -> None:
        """Remove documents with all their chunks; unknown ids are ignored.

        Raises ObjectNotFoundError for an unknown bank.
        """
        bank = await self._bank(bank_id)
        if not document_ids:
            return
        async with self._writing[bank_id]:
            await self._on(
                bank,
                "delete",
                points_selector=models.FilterSelector(filter=points.of_documents(document_ids)),
            )

    async def _bank(self, bank_id: str) -> Bank:
        known = self._banks.get(bank_id)
        if known is None:
            known = await self._read_bank(points.collection_name(self._config.collection_prefix, bank_id))
            if known is None:
                raise self._unknown(bank_id)
            self._banks[bank_id] = known
        return known

    def _unknown(self, bank_id: str) -> ObjectNotFoundError:
        return ObjectNotFoundError("memory bank", bank_id, available=sorted(self._banks), param="bank_id")

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
        return Bank(read, collection, cast(models.VectorParams, info.config.params.vectors).size)

    async def _make_bank(self, definition: VectorMemoryBank, name: str) -> Bank:
        # No other way to learn the dimension works with every inference provider.
        try:
            reply = await self._inference.embeddings(model=definition.embedding_model, contents=["dimension"])
        except LlamaStackError as error:
            error.amend(param="memory_bank.embedding_model")  # the name's path in the caller's request
            raise
        try:
            await self._backend.call(
                "create_collection",
                collection_name=name,
                vectors_config=models.VectorParams(size=len(reply.embeddings[0]), distance=models.Distance.COSINE),
                metadata=points.to_metadata(definition),
            )
        except ConflictError:
            # Another process on the same server made it first; the caller compares the definitions.
            logger.info("another process made collection %s", name)
        made = await self._read_bank(name)
        if made is None:
            raise ConflictError(
                f"collection '{name}' does not belong to this provider, or the server is older than 1.16 and keeps no "
                "metadata",
                provider_id=self._provider_id,
            )
        return made

    async def _on(self, bank: Bank, method: str, **arguments: Any) -> Any:
        try:
            return await self._backend.call(method, collection_name=bank.collection, **arguments)
        except NotFoundError as error:
            self._banks.pop(bank.definition.identifier, None)
            raise self._unknown(bank.definition.identifier) from error

    async def _text(self, document: MemoryBankDocument, param: str) -> str:
        if self._http is None:
            raise ProviderUnavailableError("the provider is not started", provider_id=self._provider_id)
        most = self._config.max_document_bytes
        text = await document_text(
            document.content,
            self._http,
            mime_type=document.mime_type,
            max_bytes=most,
            allow_private=self._config.allow_private_urls,
            param=param,
            fetch_timeout_s=self._config.fetch_timeout,
            limits=ExtractionLimits(seconds=self._config.extraction_timeout, pages=self._config.max_document_pages),
        )
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise InvalidRequestError(
                f"{param}: is not valid Unicode", param=param, provider_id=self._provider_id
            ) from None
        if size > most:
            raise InvalidRequestError(
                f"{param}: is larger than {most} bytes", param=param, provider_id=self._provider_id
            )
        return text

    async def _embed(self, bank: Bank, texts: Sequence[str]) -> list[list[float]]:
        vectors: list[list[float]] = []
        for first in range(0, len(texts), self._config.embedding_batch_size):
            batch = texts[first : first + self._config.embedding_batch_size]
            reply = await self._inference.embeddings(model=bank.definition.embedding_model, contents=list(batch))
            vectors += reply.embeddings
        for vector in vectors:
            if len(vector) != bank.dimension:
                raise ConflictError(
                    f"embedding model '{bank.definition.embedding_model}' makes vectors of {len(vector)} numbers, but "
                    f"memory bank '{bank.definition.identifier}' was made for {bank.dimension}",
                    provider_id=self._provider_id,
                )
        return vectors

    async def _write(self, bank: Bank, written: Sequence[models.PointStruct], generation: int) -> None:
        """Write pending points; remove them if writing fails or is cancelled."""
        try:
            for first in range(0, len(written), _POINTS_PER_CALL):
                await self._on(bank, "upsert", points=list(written[first : first + _POINTS_PER_CALL]))
        except BaseException as error:
            with anyio.move_on_after(_CLEAN_UP_SECONDS, shield=True):
                try:
                    selector = models.FilterSelector(filter=points.pending_of(generation))
                    await self._on(bank, "delete", points_selector=selector)
                except LlamaStackError as second:
                    error.add_note(
                        f"the points written so far could not be removed, but queries never find them: {second}"
                    )
            raise


async def get_adapter_impl(config: QdrantConfig, deps: Deps) -> QdrantMemory:
    """Make the provider; `initialize` opens it."""
    return QdrantMemory(config, deps)
