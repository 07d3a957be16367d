"""The base of memory providers. A provider stores, searches and deletes; the base does the rest."""

from __future__ import annotations

import re
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import ClassVar
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread

from llamastack.api.base import JsonObject
from llamastack.api.common import InterleavedTextMedia, holds_images, text_of
from llamastack.api.inference import Inference
from llamastack.api.memory import Memory, MemoryBankDocument, QueryDocumentsResponse
from llamastack.api.memory_banks import MemoryBank
from llamastack.provider import (
    Api,
    ConflictError,
    Deps,
    InvalidRequestError,
    LlamaStackError,
    MemoryBanksProtocolPrivate,
    NotFoundError,
    ObjectNotFoundError,
    RequestTooLargeError,
    UnsupportedMemoryBankError,
)
from llamastack.provider.jobs import CurrentJob, current_job
from llamastack_memory_kit.document_chunks import DocumentReader
from llamastack_memory_kit.query_params import read_query_params
from llamastack_memory_kit.records import (
    Bank,
    ChunkSize,
    DocumentStatus,
    FoundChunk,
    Insert,
    Query,
    SearchMode,
    StoredChunk,
    definition_of,
)
from llamastack_memory_kit.searching import search_bank
from llamastack_memory_kit.settings import DocumentSettings

_LONGEST_TTL_SECONDS = 10**10
_BATCH = 64
"""Documents that a job stores at once."""
_DOCUMENT = re.compile(r"documents\[(\d+)\]")
_OF_ONE_DOCUMENT = (InvalidRequestError, RequestTooLargeError)
"""Errors after which a job goes on with the next document. After any other the next one would fail, too."""


class BankMemory(Memory, MemoryBanksProtocolPrivate):
    """Banks without embedding models, such as those of keywords. `VectorMemory` adds embeddings.

    A provider implements `list_banks`, `create_bank`, `drop_bank`, `store`, `search` and `delete`; it may implement
    `open`, `close`, `find_bank` and `chunk_size`.

    `store`, `search` and `delete` raise NotFoundError if the backend has no such bank any more.
    """

    bank_types: ClassVar[tuple[str, ...]]
    """The types of banks that the provider keeps, such as `keyword`."""
    modes: ClassVar[Mapping[str, Sequence[SearchMode]]] = {"vector": ("vector",)}
    """Type of a bank -> how `search` finds its chunks, the default first. With both modes there is `hybrid`, too.

    A type that is not named is searched by words, one with () in a way of its own, without a mode.
    """
    filters: ClassVar[bool] = False
    """Whether `search` looks only at documents that fit `query.filter`."""
    keyword_scores: ClassVar[str] = "bm25"
    """What the scores of a search by words are; queries name it in `scored_by`."""

    def __init__(self, settings: DocumentSettings, deps: Deps) -> None:
        """Raises ValueError if the tokenizer file cannot be read."""
        self.provider_id: str = deps.provider_id
        """The id that this instance has in the run config."""
        self._reader = DocumentReader(settings, deps.provider_id)
        self._inference: Inference | None = deps.get("inference")
        self._banks: dict[str, Bank] = {}
        self._registering = anyio.Lock()
        # Weak: a lock is there as long as somebody holds it or waits for it.
        self._writing: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()
        self._last_generation = 0

    # ---- what a provider implements -----------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the backend. Raises if it cannot start."""

    async def close(self) -> None:
        """Close what is open. Called also if `open` failed, and more than once."""

    @abstractmethod
    async def list_banks(self) -> Sequence[Bank]:
        """The banks that are in the backend now. The stack asks every few seconds."""

    async def find_bank(self, identifier: str) -> Bank | None:
        """One bank as it is in the backend now."""
        return next((bank for bank in await self.list_banks() if bank.identifier == identifier), None)

    @abstractmethod
    async def create_bank(self, bank: Bank) -> None:
        """Make a bank that `find_bank` does not find. If another process makes it now, that is no error."""

    @abstractmethod
    async def drop_bank(self, bank: Bank) -> None:
        """Delete the bank with all its chunks."""

    @abstractmethod
    async def store(self, bank: Bank, insert: Insert) -> None:
        """Replace all chunks of the documents by the new ones, all or none, also if this is cancelled.

        A backend without transactions derives from `StagedStorage`.
        """

    @abstractmethod
    async def search(self, bank: Bank, query: Query) -> Sequence[FoundChunk]:
        """At most `query.max_chunks` chunks, the best that have not expired.

        `query.mode` says how to search, `query.filter` which documents; see `modes` and `filters`.
        """

    async def search_both(self, bank: Bank, query: Query) -> tuple[Sequence[FoundChunk], Sequence[FoundChunk]]:
        """What is found by the vector of a query, and what by its words; a hybrid query fuses them.

        Implement it if the backend can do both in one request or of one state of its data.
        """
        return await self.search(bank, query), await self.search(bank, replace(query, mode="keyword"))

    @abstractmethod
    async def delete(self, bank: Bank, document_ids: Sequence[str]) -> None:
        """Remove all chunks of the documents; unknown ids are no error."""

    def chunk_size(self, bank: Bank) -> ChunkSize:
        """How documents of a bank are cut."""
        return ChunkSize(200)

    def modes_of(self, bank: Bank) -> Sequence[SearchMode]:
        """How the chunks of a bank can be searched, the default first."""
        return self.modes.get(bank.definition.type, ("keyword",))

    def score_name(self, bank: Bank, mode: SearchMode) -> str:
        """What the scores of a search are."""
        return "cosine_similarity" if mode == "vector" else self.keyword_scores

    async def dimension(self, definition: MemoryBank) -> int:
        """The length of the vectors of a bank that is about to be made; 0 without an embedding model."""
        return 0

    async def embed(self, bank: Bank, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """The vectors of chunks; empty ones without an embedding model."""
        return [()] * len(texts)

    async def embed_query(self, bank: Bank, text: str) -> Sequence[float]:
        """The vector of a query; empty without an embedding model."""
        return ()

    # ---- life and banks -----------------------------------------------------------------------------------------

    async def initialize(self) -> None:
        """Open the backend. Raises if it cannot start."""
        await self.open()
        self._reader.open()

    async def shutdown(self) -> None:
        """Close everything; safe to call twice, and without `initialize`."""
        try:
            await self._reader.aclose()
        finally:
            await self.close()

    async def list_memory_banks(self) -> list[MemoryBank]:
        """The banks that are in the backend now, including those of other processes."""
        self._banks = {bank.identifier: bank for bank in await self.list_banks()}
        return [bank.definition for bank in self._banks.values()]

    async def register_memory_bank(self, memory_bank: MemoryBank) -> None:
        """Make the bank, or find the existing one.

        Raises UnsupportedMemoryBankError for another type of bank, ConflictError if the bank exists with another
        definition, and the error of the embedding model if it cannot be used. After an error nothing is made.
        """
        if memory_bank.type not in self.bank_types:
            kept = " and ".join(f"'{each}'" for each in self.bank_types)
            raise UnsupportedMemoryBankError(
                memory_bank.identifier,
                reason=f"this provider keeps banks of type {kept}, not '{memory_bank.type}'",
                provider_id=self.provider_id,
            )
        async with self._registering:
            bank = await self.find_bank(memory_bank.identifier)
            if bank is None:
                await self.create_bank(Bank(memory_bank, await self.dimension(memory_bank)))
                bank = await self.find_bank(memory_bank.identifier)
            if bank is None:
                raise self._conflict(f"memory bank '{memory_bank.identifier}' was removed while it was made")
            if not bank.has_definition(memory_bank):
                raise self._conflict(
                    f"memory bank '{memory_bank.identifier}' already exists with another definition: "
                    f"{definition_of(bank.definition)}"
                )
            self._banks[memory_bank.identifier] = bank

    async def unregister_memory_bank(self, memory_bank: MemoryBank) -> None:
        """Delete the bank with all its documents.

        Ignores a missing bank. A bank with another definition stays: someone registered it again in the meantime.
        """
        async with self._registering, self._write_lock(memory_bank.identifier):
            self._banks.pop(memory_bank.identifier, None)
            bank = await self.find_bank(memory_bank.identifier)
            if bank is not None and bank.has_definition(memory_bank):
                await self.drop_bank(bank)

    async def forget_memory_bank(self, memory_bank: MemoryBank) -> None:
        """Another worker unregistered the bank."""
        self._banks.pop(memory_bank.identifier, None)

    # ---- documents ----------------------------------------------------------------------------------------------

    async def insert_documents(
        self, bank_id: str, documents: list[MemoryBankDocument], ttl_seconds: int | None = None
    ) -> None:
        """Store documents, all or none. A document with a known `document_id` replaces the earlier one.

        All documents are fetched, cut and embedded before the first chunk is stored. A document without text has no
        chunks. `ttl_seconds` starts at the end of embedding.

        Raises ObjectNotFoundError for an unknown bank; InvalidRequestError, with `param` `documents[i]...`, for a
        duplicate id and for content that is not text, is too large, or cannot be fetched; ConflictError if the
        embedding model makes vectors of another dimension than before.

        As a job, it stores a few documents at a time, goes on after one that cannot be stored, and gives each a status.
        Another attempt goes on where the last one ended.
        """
        job = current_job(Api.memory, "insert_documents")
        if job is None:
            await self._insert(await self._bank(bank_id), documents, ttl_seconds)
            return
        self._reader.check_ids(documents)
        places = job.open_items([document.document_id for document in documents], "documents")
        for start in range(0, len(places), _BATCH):
            await self._insert_batch(bank_id, documents, ttl_seconds, places[start : start + _BATCH], job)

    async def _insert_batch(
        self,
        bank_id: str,
        documents: Sequence[MemoryBankDocument],
        ttl_seconds: int | None,
        places: list[int],
        job: CurrentJob,
    ) -> None:
        """Store the documents at these places, all but those that cannot be stored."""
        left = [*places]
        while left:
            try:
                await self._insert(await self._bank(bank_id), [documents[place] for place in left], ttl_seconds)
            except _OF_ONE_DOCUMENT as error:
                named = _DOCUMENT.match(error.param or "")
                if named is None:
                    break
                job.finish_item(left.pop(int(named[1])), error)
            else:
                for place in left:
                    job.finish_item(place)
                return
        async for status in self.insert_each(bank_id, documents, ttl_seconds, left):
            if status.error is not None and not isinstance(status.error, _OF_ONE_DOCUMENT):
                raise status.error
            job.finish_item(status.place, status.error)

    async def insert_each(
        self,
        bank_id: str,
        documents: Sequence[MemoryBankDocument],
        ttl_seconds: int | None = None,
        places: Sequence[int] | None = None,
    ) -> AsyncIterator[DocumentStatus]:
        """Store documents one by one, in order, and say of each what became of it. For work in the background.

        places: of the documents to store; None: all. A document that was stored already is replaced by itself.

        Raises ObjectNotFoundError for an unknown bank.
        """
        for place in range(len(documents)) if places is None else places:
            document, bank = documents[place], await self._bank(bank_id)
            try:
                await self._insert(bank, [document], ttl_seconds, place)
            except LlamaStackError as error:
                yield DocumentStatus(place, document.document_id, error)
            else:
                yield DocumentStatus(place, document.document_id)

    async def _insert(
        self, bank: Bank, documents: Sequence[MemoryBankDocument], ttl_seconds: int | None, first: int = 0
    ) -> None:
        if not documents:
            return
        chunks = await self._reader.chunks(documents, self.chunk_size(bank), first)
        vectors = await self.embed(bank, [chunk.indexed_text for chunk in chunks])
        # In a thread: with 100,000 chunks this takes tenths of a second.
        chunks = await anyio.to_thread.run_sync(_with_vectors, chunks, vectors)
        async with self._write_lock(bank.identifier):
            # The bank may have been unregistered, and even registered again, in the meantime.
            if await self._bank(bank.identifier) != bank:
                raise self._conflict(f"memory bank '{bank.identifier}' was replaced during the insert")
            now = time.time()
            self._last_generation = max(self._last_generation + 1, int(now * 1e6))
            insert = Insert(
                document_ids=[document.document_id for document in documents],
                chunks=chunks,
                generation=self._last_generation,
                now=now,
                expires_at=None if ttl_seconds is None else now + min(ttl_seconds, _LONGEST_TTL_SECONDS),
            )
            with self._in_backend(bank):
                await self.store(bank, insert)

    async def query_documents(
        self, bank_id: str, query: InterleavedTextMedia, params: JsonObject | None = None
    ) -> QueryDocumentsResponse:
        """The chunks that fit `query` best, the best first.

        params: see `query_params.QueryParams`. The higher a score, the better; `scored_by` names the scores.

        Raises ObjectNotFoundError for an unknown bank, InvalidRequestError for other params and for images, and
        NotSupportedError for params that the bank does not have.
        """
        wanted = read_query_params(params, self.provider_id)
        bank = await self._bank(bank_id)
        if holds_images(query):
            raise InvalidRequestError(
                "query: a query cannot contain images", param="query", provider_id=self.provider_id
            )
        return await search_bank(self, bank, text_of(query), wanted, self._inference, partial(self._in_backend, bank))

    async def delete_documents(self, bank_id: str, document_ids: list[str]) -> None:
        """Remove documents with all their chunks; unknown ids are ignored.

        Raises ObjectNotFoundError for an unknown bank.
        """
        bank = await self._bank(bank_id)
        if not document_ids:
            return
        async with self._write_lock(bank_id):
            with self._in_backend(bank):
                await self.delete(bank, document_ids)

    # ---- helpers ------------------------------------------------------------------------------------------------

    async def _bank(self, bank_id: str) -> Bank:
        known = self._banks.get(bank_id) or await self.find_bank(bank_id)
        if known is None:
            raise self._unknown(bank_id)
        return self._banks.setdefault(bank_id, known)

    def _write_lock(self, bank_id: str) -> anyio.Lock:
        """Held while the chunks of one bank change."""
        return self._writing.setdefault(bank_id, anyio.Lock())

    @contextmanager
    def _in_backend(self, bank: Bank) -> Iterator[None]:
        """Inside the block NotFoundError means that the backend has no such bank any more."""
        try:
            yield
        except NotFoundError as error:
            self._banks.pop(bank.identifier, None)
            raise self._unknown(bank.identifier) from error

    def _unknown(self, bank_id: str) -> ObjectNotFoundError:
        return ObjectNotFoundError("memory bank", bank_id, available=sorted(self._banks), param="bank_id")

    def _conflict(self, message: str) -> ConflictError:
        return ConflictError(message, provider_id=self.provider_id)


def _with_vectors(chunks: Sequence[StoredChunk], vectors: Sequence[Sequence[float]]) -> list[StoredChunk]:
    return [replace(chunk, vector=vector) for chunk, vector in zip(chunks, vectors, strict=True)]
