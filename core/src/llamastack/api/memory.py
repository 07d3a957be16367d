"""Memory: put documents into a bank and find them again."""

from __future__ import annotations

from typing import Annotated, Any, Protocol

from pydantic import Field

from llamastack.api.base import WireModel
from llamastack.api.common import InterleavedTextMedia
from llamastack.api.webmethod import not_served, webmethod


class MemoryBankDocument(WireModel):
    """A document. `content` that is a URL (http, https, data) is fetched; anything else is the content itself."""

    document_id: Annotated[str, Field(min_length=1)]
    content: InterleavedTextMedia
    mime_type: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class MemoryChunk(WireModel):
    """A piece of a document as it was stored."""

    content: InterleavedTextMedia
    token_count: int
    document_id: str
    metadata: dict[str, Any] | None = None
    """The metadata of its document."""


class QueryDocumentsResponse(WireModel):
    """`chunks[i]` has `scores[i]`; the best come first."""

    chunks: list[MemoryChunk]
    scores: list[float]


class Memory(Protocol):
    """Store and search documents in memory banks."""

    @webmethod("/memory/insert", routed_by="bank_id", capability="insert_documents")
    async def insert_documents(
        self,
        bank_id: str,
        documents: Annotated[list[MemoryBankDocument], Field(min_length=1)],
        ttl_seconds: Annotated[int, Field(gt=0)] | None = None,
    ) -> None:
        """Store documents; one with a known `document_id` replaces the earlier one. All or none are stored.

        After `ttl_seconds` they are no longer found.
        """
        raise not_served()

    @webmethod("/memory/query", routed_by="bank_id", capability="query_documents")
    async def query_documents(
        self,
        bank_id: str,
        query: InterleavedTextMedia,
        params: dict[str, Any] | None = None,
    ) -> QueryDocumentsResponse:
        """The chunks nearest to `query`. `params`: `max_chunks` (default 3), `score_threshold`."""
        raise not_served()

    @webmethod("/memory/delete", routed_by="bank_id", capability="delete_documents")
    async def delete_documents(
        self,
        bank_id: str,
        document_ids: Annotated[list[str], Field(min_length=1)],
    ) -> None:
        """Remove documents with all their chunks; ids that are not there are no error."""
        raise not_served()
