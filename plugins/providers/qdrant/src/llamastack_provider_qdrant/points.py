"""How banks and chunks are laid out in Qdrant: names, payloads and filters.

A bank is a collection, with its definition in the collection's metadata. A chunk is a point with the payload

    document_id, content, token_count, metadata   as `MemoryChunk` has them
    chunk_index                                   position in the document, from 0
    expires_at                                    seconds since 1970; absent without a time to live
    generation                                    the insert that wrote it, microseconds since 1970, rising
    prefix                                        title or headings above it; absent if there are none
    terms, numbers                                what filters look at; see `filtering`
    pending                                       true until the insert is complete; such points are never found

Its dense vector has no name; its words are the sparse vector `words`.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable
from typing import Any

from qdrant_client import models

from llamastack.api.memory_banks import MemoryBank
from llamastack_memory_kit import Filter, Insert, StoredChunk, definition_of
from llamastack_provider_qdrant.filtering import TERMS, condition_of, filter_fields
from llamastack_provider_qdrant.words import WORDS, chunk_words

DEFINITION_KEY = "llamastack_memory_bank"
INDEXES = {
    "document_id": models.PayloadSchemaType.KEYWORD,
    "expires_at": models.PayloadSchemaType.FLOAT,
    "generation": models.PayloadSchemaType.INTEGER,
    "pending": models.PayloadSchemaType.BOOL,
    TERMS: models.PayloadSchemaType.KEYWORD,
}

_ABANDONED_AFTER_SECONDS = 3600


def collection_name(prefix: str, identifier: str) -> str:
    """The bank's collection: readable, and safe as a name in Qdrant and as a folder on any file system.

    Identifiers may be too long for both, and may differ only in case, so a digest makes the name unique.
    """
    readable = re.sub(r"[^a-z0-9]+", "-", identifier.lower()).strip("-")[:40]
    digest = hashlib.sha256(identifier.encode()).hexdigest()[:32]
    return f"{prefix}{readable}_{digest}" if readable else f"{prefix}{digest}"


def to_metadata(bank: MemoryBank) -> dict[str, Any]:
    """The collection's metadata."""
    return {DEFINITION_KEY: definition_of(bank)}


def to_point(chunk: StoredChunk, insert: Insert, usual_length: int | None) -> models.PointStruct:
    """One pending point. usual_length: see `chunk_words`; None for a bank without sparse vectors."""
    payload: dict[str, Any] = {
        "document_id": chunk.document_id,
        "content": chunk.content,
        "token_count": chunk.token_count,
        "metadata": chunk.metadata,
        "chunk_index": chunk.index,
        "generation": insert.generation,
        "pending": True,
        **filter_fields(chunk.metadata),
    }
    if chunk.prefix:
        payload["prefix"] = chunk.prefix
    if insert.expires_at is not None:
        payload["expires_at"] = insert.expires_at
    dense = list(chunk.vector)
    words = None if usual_length is None else chunk_words(chunk.indexed_text, usual_length)
    vector: Any = {"": dense, WORDS: words} if words and words.indices else dense
    # Not validated: that would look at each number of the vector, for each type that a vector may have.
    return models.PointStruct.model_construct(id=str(uuid.uuid4()), vector=vector, payload=payload)


def to_chunk(payload: dict[str, Any]) -> StoredChunk:
    """The chunk of a point in a query's result."""
    return StoredChunk(
        document_id=payload["document_id"],
        content=payload["content"],
        token_count=payload["token_count"],
        metadata=payload["metadata"],
        index=payload["chunk_index"],
        generation=payload["generation"],
        prefix=payload.get("prefix", ""),
    )


def _is_pending() -> models.FieldCondition:
    return models.FieldCondition(key="pending", match=models.MatchValue(value=True))


def _is_expired(now: float) -> models.FieldCondition:
    return models.FieldCondition(key="expires_at", range=models.Range(lte=now))


def _is_of(document_ids: Iterable[str]) -> models.FieldCondition:
    return models.FieldCondition(key="document_id", match=models.MatchAny(any=list(document_ids)))


def findable(now: float, wanted: Filter | None = None) -> models.Filter:
    """Filter: complete, not expired at `now` (seconds since 1970), and of documents that may fit `wanted`."""
    must: list[models.Condition] | None = None if wanted is None else [condition_of(wanted)]
    return models.Filter(must=must, must_not=[_is_pending(), _is_expired(now)])


def of_documents(document_ids: Iterable[str]) -> models.Filter:
    """Filter: the complete points of these documents. It leaves out inserts that are still running."""
    return models.Filter(must=[_is_of(document_ids)], must_not=[_is_pending()])


def pending_of(generation: int) -> models.Filter:
    """Filter: the points that an insert has written and queries cannot find yet."""
    return models.Filter(
        must=[models.FieldCondition(key="generation", match=models.MatchValue(value=generation)), _is_pending()]
    )


def completing(insert: Insert) -> list[models.UpdateOperation]:
    """Make the points of the insert visible, then remove the points that they replace.

    In this order queries always find the documents. Only older generations are removed, so two processes that replace a
    document at once cannot remove each other's points. Expired points, and pending ones of inserts that stopped more
    than an hour ago, are removed too.
    """
    older = models.FieldCondition(key="generation", range=models.Range(lt=insert.generation))
    abandoned = models.FieldCondition(
        key="generation", range=models.Range(lt=int((insert.now - _ABANDONED_AFTER_SECONDS) * 1e6))
    )
    show = models.SetPayloadOperation(
        set_payload=models.SetPayload(payload={"pending": False}, filter=pending_of(insert.generation))
    )
    replaced = models.Filter(must=[_is_of(insert.document_ids), older], must_not=[_is_pending()])
    useless = models.Filter(should=[_is_expired(insert.now), models.Filter(must=[abandoned, _is_pending()])])
    return [
        show,
        *(models.DeleteOperation(delete=models.FilterSelector(filter=which)) for which in (replaced, useless)),
    ]
