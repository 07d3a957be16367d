"""Memory banks, which keep documents."""

from __future__ import annotations

from typing import Annotated, Literal, Protocol, Self

from pydantic import BeforeValidator, Field, model_validator

from llamastack.api.base import RoutedObject
from llamastack.api.webmethod import ResourceAction, webmethod


class VectorMemoryBank(RoutedObject):
    """Documents are split into overlapping chunks of tokens and found by the similarity of their embeddings."""

    type: Literal["vector"] = "vector"
    embedding_model: str
    """The model that makes its embeddings."""
    chunk_size_in_tokens: Annotated[int, Field(ge=1)]
    """Tokens in each chunk of a document."""
    overlap_size_in_tokens: Annotated[int, Field(ge=0)] | None = None
    """Tokens that neighbouring chunks share."""

    @model_validator(mode="after")
    def _overlap_is_smaller_than_chunk(self) -> Self:
        if (self.overlap_size_in_tokens or 0) >= self.chunk_size_in_tokens:
            raise ValueError("overlap_size_in_tokens must be smaller than chunk_size_in_tokens")
        return self


class KeyValueMemoryBank(RoutedObject):
    """Documents are found by their keys."""

    type: Literal["keyvalue"] = "keyvalue"


class KeywordMemoryBank(RoutedObject):
    """Documents are found by the words in them."""

    type: Literal["keyword"] = "keyword"


class GraphMemoryBank(RoutedObject):
    """Documents are found through the entities in them."""

    type: Literal["graph"] = "graph"


_VECTOR_FIELDS = frozenset(VectorMemoryBank.model_fields) - frozenset(KeyValueMemoryBank.model_fields)


def _with_type(bank: object) -> object:
    """A bank without a type gets the first type that its fields fit."""
    if not isinstance(bank, dict) or "type" in bank:
        return bank
    return {**bank, "type": "vector" if _VECTOR_FIELDS & bank.keys() else "keyvalue"}


MemoryBank = Annotated[
    VectorMemoryBank | KeyValueMemoryBank | KeywordMemoryBank | GraphMemoryBank,
    Field(discriminator="type"),
    BeforeValidator(_with_type),
]
"""A memory bank of any kind; `type` is its kind."""


class MemoryBanks(Protocol):
    """The memory banks that the configured memory providers serve."""

    @webmethod("/memory_banks/list", methods=("GET",), resource_action=ResourceAction.LIST)
    async def list_memory_banks(self) -> list[MemoryBank]:
        """All memory banks, by provider in config order."""
        ...

    @webmethod("/memory_banks/get", methods=("GET",), resource_action=ResourceAction.GET)
    async def get_memory_bank(self, identifier: str) -> MemoryBank | None:
        """One memory bank by name; None when nothing by that name is served."""
        ...

    @webmethod("/memory_banks/register", resource_action=ResourceAction.REGISTER)
    async def register_memory_bank(self, memory_bank: MemoryBank) -> None:
        """Register a memory bank with its provider and remember it."""
        ...

    @webmethod("/memory_banks/unregister", resource_action=ResourceAction.UNREGISTER)
    async def unregister_memory_bank(self, identifier: str) -> None:
        """Undo a registration."""
        ...
