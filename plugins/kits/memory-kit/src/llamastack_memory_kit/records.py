"""What a memory provider is given to store and to search for, and what it returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from uuid import uuid4

from llamastack.api.base import JsonObject
from llamastack.api.memory_banks import MemoryBank
from llamastack.provider.errors import LlamaStackError
from llamastack_memory_kit.filters import Filter

SearchMode = Literal["vector", "keyword"]
"""How a backend searches: by the similarity of vectors, or by words."""


@dataclass(frozen=True, slots=True)
class Bank:
    """A bank as the backend keeps it.

    definition: as it was registered. dimension: the length of its vectors; 0 for a bank without an embedding model.
    """

    definition: MemoryBank
    dimension: int = 0

    @property
    def identifier(self) -> str:
        """Its name."""
        return self.definition.identifier

    def has_definition(self, other: MemoryBank) -> bool:
        """Whether `other` makes the same bank. The instance that keeps it may have another name in each run config."""
        return definition_of(self.definition) == definition_of(other)


def definition_of(bank: MemoryBank) -> JsonObject:
    """The definition to keep in the backend: without what belongs to one run config."""
    return bank.model_dump(mode="json", exclude={"provider_id", "unavailable_reason"})


@dataclass(frozen=True, slots=True)
class ChunkSize:
    """How documents are cut.

    size: tokens of a chunk. overlap: tokens that neighbours share, less than `size`.
    """

    size: int
    overlap: int = 0


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk of a document.

    document_id: its document. content: its text. token_count: tokens of its text. metadata: those of its document.
    index: its place in the document, from 0.
    vector: its embedding; empty in banks without an embedding model, and not needed in results.
    generation: in results, that of the insert; then a hybrid query never mixes two versions of a document.
    prefix: the title or the headings above it; not part of `content`.
    """

    document_id: str
    content: str
    token_count: int
    metadata: JsonObject
    index: int = 0
    vector: Sequence[float] = ()
    generation: int = 0
    prefix: str = ""

    @property
    def indexed_text(self) -> str:
        """The text that is embedded, and in which words are searched."""
        return f"{self.prefix}\n{self.content}" if self.prefix else self.content


@dataclass(frozen=True, slots=True)
class Insert:
    """Documents to store, all or none. All earlier chunks of the same documents are replaced.

    document_ids: the documents; one without text has no chunks.
    chunks: those of all the documents, in order.
    generation: rises with each insert of this process; microseconds since 1970.
    now: seconds since 1970. expires_at: from then on no query finds the chunks; None: they stay.
    key: a name that no other insert of any process has.
    """

    document_ids: Sequence[str]
    chunks: Sequence[StoredChunk]
    generation: int
    now: float
    expires_at: float | None
    key: str = field(default_factory=lambda: uuid4().hex)


@dataclass(frozen=True, slots=True)
class Query:
    """What to search for.

    text: the query itself.
    vector: the embedding of `text`; empty for banks without an embedding model, and for a search by words.
    max_chunks: the most chunks to return. score_threshold: the least score; the kit applies it, too.
    now: seconds since 1970; a chunk whose `expires_at` is not later is not found.
    mode: how to search. filter: which documents to search; see `filters.matches`.
    """

    text: str
    vector: Sequence[float]
    max_chunks: int
    score_threshold: float | None
    now: float
    mode: SearchMode = "vector"
    filter: Filter | None = None


class FoundChunk(NamedTuple):
    """A chunk and its score.

    chunk: what was found. score: a finite number; the higher, the better it fits.
    """

    chunk: StoredChunk
    score: float


@dataclass(frozen=True, slots=True)
class DocumentStatus:
    """What became of one document of `insert_each`.

    place: its place in the list of documents. document_id: its id. error: why it is not stored; None if it is stored.
    """

    place: int
    document_id: str
    error: LlamaStackError | None = None
