"""Banks and chunks for backends whose records have only texts and numbers, as those of most vector databases."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, Json, TypeAdapter, ValidationError

from llamastack.api.base import JsonObject
from llamastack.api.memory_banks import MemoryBank
from llamastack.provider import BackendError
from llamastack_memory_kit.records import Bank, Insert, StoredChunk, definition_of

FOREVER = 1e15
"""`expires_at` of a chunk that stays: seconds since 1970, later than any other."""


class _Fields(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    document_id: str
    token_count: int
    chunk_index: int
    metadata: Json[JsonObject]


_BANK: TypeAdapter[MemoryBank] = TypeAdapter(Annotated[MemoryBank, Field(discriminator="type")])


def collection_name(prefix: str, identifier: str) -> str:
    """The name of a bank's collection: readable, of ASCII, unique, and at most 73 characters longer than the prefix.

    Identifiers may be long, of any script, and differ only in case; a digest makes the name unique.
    """
    readable = re.sub(r"[^a-z0-9]+", "-", identifier.lower()).strip("-")[:40].rstrip("-")
    digest = hashlib.sha256(identifier.encode()).hexdigest()[:32]
    return f"{prefix}{readable}-{digest}" if readable else f"{prefix}{digest}"


def bank_to_text(bank: Bank) -> str:
    """The text of a bank, to be kept with its collection."""
    return json.dumps({"definition": definition_of(bank.definition), "dimension": bank.dimension}, sort_keys=True)


def bank_from_text(text: object) -> Bank:
    """The bank of `bank_to_text`. Raises BackendError for any other text: someone has changed it in the backend."""
    try:
        found = json.loads(str(text))
        return Bank(_BANK.validate_python(found["definition"]), int(found["dimension"]))
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise BackendError(f"the definition of a memory bank cannot be read: {error}") from error


def chunk_to_fields(chunk: StoredChunk, insert: Insert) -> dict[str, str | int | float]:
    """The fields of a chunk beside its text and its vector.

    document_id, token_count, chunk_index and metadata (as JSON) are those of the chunk; insert and generation are those
    of the insert. expires_at is in seconds since 1970, FOREVER for a chunk that stays. It is always a float: some
    backends compare only numbers of one type.
    """
    return {
        "document_id": chunk.document_id,
        "token_count": chunk.token_count,
        "chunk_index": chunk.index,
        "metadata": json.dumps(chunk.metadata),
        "insert": insert.key,
        "generation": insert.generation,
        "expires_at": FOREVER if insert.expires_at is None else float(insert.expires_at),
    }


def chunk_from_fields(content: str, fields: object) -> StoredChunk:
    """The chunk of `chunk_to_fields`. Raises BackendError for other fields."""
    try:
        found = _Fields.model_validate(fields)
    except ValidationError as error:
        raise BackendError(f"a chunk in the backend cannot be read: {error}") from error
    return StoredChunk(found.document_id, content, found.token_count, found.metadata, found.chunk_index)
