"""The fields that the configs of memory providers share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

ExpandedPath = Annotated[Path, AfterValidator(Path.expanduser)]
"""A path in which `~` is the user's home."""


class DocumentSettings(BaseModel):
    """How documents are read. The base of a memory provider's config."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    max_document_bytes: int = Field(default=32 * 2**20, ge=1, description="Most bytes of a document, as UTF-8.")
    max_insert_chunks: int = Field(
        default=100_000,
        ge=1,
        description="Most chunks of all documents in one insert; they are in memory at the same time.",
    )
    fetch_timeout: float = Field(
        default=30.0, gt=0, allow_inf_nan=False, description="Seconds that fetching a document's URL may take."
    )
    max_document_pages: int = Field(default=2000, ge=1, description="Most pages of a PDF.")
    extraction_timeout: float = Field(
        default=30.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds that reading the text of an HTML, PDF, DOCX, CSV or JSON document may take.",
    )
    allow_private_urls: bool = Field(
        default=False,
        description="Whether documents are also fetched from loopback, private and link-local addresses. "
        "Every client can then read what these serve.",
    )
    tokenizer: ExpandedPath | None = Field(
        default=None,
        description="A tokenizer.json that counts the tokens, preferably the embedding model's. "
        "Without it a token is a word, a punctuation mark or a character of a script without spaces.",
    )

    chunk_prefix: Literal["none", "title", "headings"] = Field(
        default="none",
        description="The text that is embedded and indexed before each chunk and is not part of its content: none, the "
        "document's title (`title` of its metadata, else of the file, else its first heading), or title and headings.",
    )


class EmbeddingSettings(DocumentSettings):
    """The base of the config of a provider with vector banks."""

    embedding_batch_size: int = Field(
        default=64, ge=1, le=4096, description="Most chunks in one call of the embedding model."
    )
    embedding_concurrency: int = Field(
        default=4, ge=1, le=256, description="Most calls of embedding models at the same time for inserts."
    )
