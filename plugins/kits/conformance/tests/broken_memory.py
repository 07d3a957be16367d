"""Memory providers that are each broken in one way, for shapes of data: long, many, odd."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from breaking import breaker
from broken_others import BANK, forgetful
from vectors_in_memory import VECTORS, VectorsInMemory

from llamastack.api.common import ImageMedia
from llamastack.provider import Deps
from llamastack.provider.errors import InvalidRequestError, LlamaStackError
from llamastack_memory_kit import Bank, ChunkSize, Insert, StoredChunk
from llamastack_provider_sample.memory import SampleMemory

__all__ = ["BANK", "VECTORS", "VectorsInMemory", "make_vectors"]
VECTOR_BANK = {
    "identifier": "vectors",
    "type": "vector",
    "embedding_model": "hashed-words",
    "chunk_size_in_tokens": 64,
}
EMBEDDINGS = {"inference": [{"provider_id": "embed", "provider_type": "test-embeddings"}]}


def make_vectors(cls: type) -> Callable[..., Any]:
    async def make(config: Any, deps: Deps) -> Any:
        return cls(config, deps)

    make.__annotations__["return"] = cls
    return make


unlike = breaker("memory", VECTORS, make_vectors, settings={"objects": [VECTOR_BANK]}, providers=EMBEDDINGS)


class _Stores(SampleMemory):
    """Stores other chunks than those that it gets."""

    def changed(self, chunks: list[StoredChunk]) -> list[StoredChunk]:
        raise NotImplementedError

    async def store(self, bank: Bank, insert: Insert) -> None:
        await super().store(bank, replace(insert, chunks=self.changed([*insert.chunks])))


class _Writes(_Stores):
    """Stores other texts than those that it gets."""

    def written(self, text: str) -> str:
        raise NotImplementedError

    def changed(self, chunks: list[StoredChunk]) -> list[StoredChunk]:
        return [replace(chunk, content=self.written(chunk.content)) for chunk in chunks]


# ---- long documents, and many ----------------------------------------------------------------------------------------


@forgetful("insert_documents.long")
class StoresTheFirst256(_Stores):
    def changed(self, chunks: list[StoredChunk]) -> list[StoredChunk]:
        return chunks[:256]


@forgetful("insert_documents.long")
class LosesTheLastOfMany(_Stores):
    def changed(self, chunks: list[StoredChunk]) -> list[StoredChunk]:
        return chunks[:-1] if len(chunks) > 10 else chunks


@forgetful("insert_documents.long")
class LosesOneAtEachBatch(_Stores):
    def changed(self, chunks: list[StoredChunk]) -> list[StoredChunk]:
        return [chunk for place, chunk in enumerate(chunks) if place % 64 != 63]


@forgetful("insert_documents.long")
class GivesMetadataToTheFirstChunk(_Stores):
    def changed(self, chunks: list[StoredChunk]) -> list[StoredChunk]:
        return [replace(chunk, metadata=chunk.metadata if chunk.index == 0 else {}) for chunk in chunks]


@unlike("insert_documents.long")
class LosesAVectorInEachBatch(VectorsInMemory):
    async def store(self, bank: Bank, insert: Insert) -> None:
        kept = [chunk for place, chunk in enumerate(insert.chunks) if place % 100 != 99]
        await super().store(bank, replace(insert, chunks=kept))


@unlike("insert_documents.chunks")
class CutsAsItLikes(VectorsInMemory):
    def chunk_size(self, bank: Bank) -> ChunkSize:
        return ChunkSize(200)


@unlike("insert_documents.chunks")
class SharesNothing(VectorsInMemory):
    def chunk_size(self, bank: Bank) -> ChunkSize:
        return ChunkSize(super().chunk_size(bank).size)


@unlike("insert_documents.chunks")
class CountsOne(VectorsInMemory):
    async def store(self, bank: Bank, insert: Insert) -> None:
        await super().store(bank, replace(insert, chunks=[replace(chunk, token_count=1) for chunk in insert.chunks]))


@forgetful("insert_documents.long")
class CountsOneToken(_Stores):
    def changed(self, chunks: list[StoredChunk]) -> list[StoredChunk]:
        return [replace(chunk, token_count=1) for chunk in chunks]


@forgetful("insert_documents.many")
class StoresAHundredDocuments(_Stores):
    def changed(self, chunks: list[StoredChunk]) -> list[StoredChunk]:
        return chunks[:100]


@forgetful("insert_documents.many")
class MixesUpDocuments(_Stores):
    def changed(self, chunks: list[StoredChunk]) -> list[StoredChunk]:
        if len(chunks) < 3:
            return chunks
        return [replace(each, content=chunks[place - 1].content) for place, each in enumerate(chunks)]


# ---- text ------------------------------------------------------------------------------------------------------------


@forgetful("insert_documents.text")
class ComposesCharacters(_Writes):
    def written(self, text: str) -> str:
        return unicodedata.normalize("NFC", text)


@forgetful("insert_documents.text")
class StoresLatin1(_Writes):
    def written(self, text: str) -> str:
        return text.encode("latin-1", "replace").decode("latin-1")


@forgetful("insert_documents.text")
class StoresCharactersOf16Bits(_Writes):
    def written(self, text: str) -> str:
        return "".join(character if ord(character) < 0x10000 else "\ufffd" for character in text)


@forgetful("insert_documents.text")
class FoldsWhiteSpace(_Writes):
    def written(self, text: str) -> str:
        return " ".join(text.split())


@forgetful("insert_documents.text")
class StoresLowerCase(_Writes):
    def written(self, text: str) -> str:
        return text.lower()


@forgetful("insert_documents.text")
class EscapesHtml(_Writes):
    def written(self, text: str) -> str:
        return text.replace("&", "&amp;").replace("<", "&lt;")


@forgetful("insert_documents.odd-text")
class EndsAtNul(_Writes):
    def written(self, text: str) -> str:
        return text.partition("\0")[0]


@forgetful("insert_documents.odd-text")
class DropsControlCharacters(_Writes):
    def written(self, text: str) -> str:
        return "".join(character for character in text if character >= " " or character == "\n")


@forgetful("insert_documents.odd-text")
class KeepsWhatBecameEmpty(SampleMemory):
    async def store(self, bank: Bank, insert: Insert) -> None:
        await super().store(bank, replace(insert, document_ids=[*{chunk.document_id for chunk in insert.chunks}]))


@forgetful("insert_documents.odd-text")
class SkipsAllAtAnEmptyOne(SampleMemory):
    async def insert_documents(self, bank_id: str, documents: Any, ttl_seconds: int | None = None) -> None:
        if all(document.content for document in documents):
            await super().insert_documents(bank_id, documents, ttl_seconds)


@forgetful("insert_documents.odd-text")
class RefusesTooLate(SampleMemory):
    async def insert_documents(self, bank_id: str, documents: Any, ttl_seconds: int | None = None) -> None:
        for document in documents:
            if not document.content:
                raise InvalidRequestError("documents: there is one without text", param="documents")
            await super().insert_documents(bank_id, [document], ttl_seconds)


@forgetful("insert_documents.parts")
class StoresTheFirstPart(SampleMemory):
    async def insert_documents(self, bank_id: str, documents: Any, ttl_seconds: int | None = None) -> None:
        first = [d.model_copy(update={"content": _first(d.content)}) for d in documents]
        await super().insert_documents(bank_id, first, ttl_seconds)


@forgetful("insert_documents.parts")
class StoresTheTextBesideImages(SampleMemory):
    async def insert_documents(self, bank_id: str, documents: Any, ttl_seconds: int | None = None) -> None:
        for document in documents:
            if isinstance(document.content, list) and any(isinstance(p, ImageMedia) for p in document.content):
                raise InvalidRequestError("documents: no images", param="documents")
            await super().insert_documents(bank_id, [document], ttl_seconds)


# ---- embeddings ------------------------------------------------------------------------------------------------------


@unlike("insert_documents.embeddings-fail")
class StoresZerosWithoutAModel(VectorsInMemory):
    async def embed(self, bank: Bank, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        try:
            return await super().embed(bank, texts)
        except LlamaStackError:
            return [[0.0] * bank.dimension for _ in texts]


@unlike("insert_documents.embeddings-fail")
class FindsAnythingWithoutAModel(VectorsInMemory):
    async def embed_query(self, bank: Bank, text: str) -> Sequence[float]:
        try:
            return await super().embed_query(bank, text)
        except LlamaStackError:
            return [0.0] * bank.dimension


@unlike("insert_documents.embeddings-fail")
class MakesRoomBeforeItEmbeds(VectorsInMemory):
    async def insert_documents(self, bank_id: str, documents: Any, ttl_seconds: int | None = None) -> None:
        await self.delete_documents(bank_id, [document.document_id for document in documents])
        await super().insert_documents(bank_id, documents, ttl_seconds)


def _first(content: Any) -> Any:
    return content[0] if isinstance(content, list) else content
