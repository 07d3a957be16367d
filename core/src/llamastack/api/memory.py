"""Memory: put documents into a bank and find them again."""

from __future__ import annotations

from typing import Annotated, Protocol

from pydantic import Field

from llamastack.api.base import OMIT_IF_NONE, JsonObject, WireModel
from llamastack.api.common import DocumentContent, InterleavedTextMedia
from llamastack.api.webmethod import not_served, webmethod


class MemoryBankDocument(WireModel):
    """A document. `content` that is a URL (http, https, data) is fetched; anything else is the content itself."""

    document_id: Annotated[str, Field(min_length=1)]
    """Its name in the bank: any text. Case, accents and blanks count."""
    content: DocumentContent
    """The document itself, or where it is: a URL as plain text, or as `{"uri": ...}`."""
    mime_type: str | None = None
    """Its media type, such as `text/plain`."""
    metadata: JsonObject = Field(default_factory=dict)
    """A JSON object; the chunks have it unchanged."""


class MemoryChunk(WireModel):
    """A piece of a document as it was stored."""

    content: InterleavedTextMedia
    """The piece itself."""
    token_count: int
    """Its length in tokens, as the provider counts them."""
    document_id: str
    """The document that it is a piece of."""
    metadata: Annotated[JsonObject | None, OMIT_IF_NONE] = None
    """The metadata of its document."""


class QueryDocumentsResponse(WireModel):
    """`chunks[i]` has `scores[i]`; the best come first."""

    chunks: list[MemoryChunk]
    """What was found."""
    scores: list[float]
    """The higher, the better it fits; what the numbers are depends on the bank."""
    scored_by: Annotated[str | None, OMIT_IF_NONE] = None
    """What the scores are, such as `cosine_similarity`, `bm25` or `reciprocal_rank`."""


class Memory(Protocol):
    """Store and search documents in memory banks."""

    @webmethod(
        "/memory/insert",
        routed_by="bank_id",
        capability="insert_documents",
        argument_capabilities={"ttl_seconds": "ttl"},
    )
    async def insert_documents(
        self,
        bank_id: str,
        documents: list[MemoryBankDocument],
        ttl_seconds: Annotated[int, Field(gt=0)] | None = None,
    ) -> None:
        """Store documents; one with a known `document_id` replaces the earlier one, its metadata and its expiry. All
        or none are stored; an empty list changes nothing. Of an id that is there twice the last document is stored, or
        the call is refused. A query meanwhile finds the earlier version of a document or the new one, whole.

        An image that cannot be found later is refused, alone and beside a text.

        After `ttl_seconds` they are no longer found. A number that the provider cannot keep is refused.
        """
        raise not_served()

    @webmethod(
        "/memory/query",
        routed_by="bank_id",
        capability="query_documents",
        argument_capabilities={
            "params.mode=vector": "vector_search",
            "params.mode=keyword": "keyword_search",
            "params.mode=hybrid": "hybrid_search",
            "params.filters": "filters",
        },
    )
    async def query_documents(
        self,
        bank_id: str,
        query: InterleavedTextMedia,
        params: JsonObject | None = None,
    ) -> QueryDocumentsResponse:
        """The chunks that fit `query` best, the best first.

        params, all optional; other keys are refused or ignored:

        - `max_chunks`: the most that are wanted, 1 to 1000, default 3.
        - `score_threshold`: the least score, that score included.
        - `mode`: `vector` (similar meaning), `keyword` (the same words) or `hybrid` (both, fused).
        - `filters`: which documents are looked at, by their metadata: `{"type": "eq", "key": "year", "value": 2024}`,
          with `eq`, `ne`, `gt`, `gte`, `lt`, `lte`, `in` or `nin` (whose `value` is a list), or
          `{"type": "and", "filters": [...]}`, with `and` or `or`.

        A query that a provider cannot search for, such as an empty one, finds nothing or is refused.
        """
        raise not_served()

    @webmethod("/memory/delete", routed_by="bank_id", capability="delete_documents")
    async def delete_documents(
        self,
        bank_id: str,
        document_ids: list[str],
    ) -> None:
        """Remove documents with all their chunks; ids that are not there are no error. No ids: nothing is removed."""
        raise not_served()
