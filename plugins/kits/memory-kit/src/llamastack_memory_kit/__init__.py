"""Help for authors of memory providers.

Names are imported on first use, so that a config with its settings stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamastack.lazy_imports import lazy_getattr

__all__ = [
    "Bank",
    "BankMemory",
    "ChunkSize",
    "Chunker",
    "Combination",
    "Comparison",
    "DocumentSettings",
    "DocumentStatus",
    "EmbeddingSettings",
    "ExpandedPath",
    "Filter",
    "FoundChunk",
    "Insert",
    "Piece",
    "Query",
    "SearchMode",
    "StagedStorage",
    "StoredChunk",
    "VectorMemory",
    "definition_of",
    "matches",
]

if TYPE_CHECKING:
    from llamastack_memory_kit.bank_memory import BankMemory
    from llamastack_memory_kit.chunking import Chunker, Piece
    from llamastack_memory_kit.filters import Combination, Comparison, Filter, matches
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
    from llamastack_memory_kit.settings import DocumentSettings, EmbeddingSettings, ExpandedPath
    from llamastack_memory_kit.staged_storage import StagedStorage
    from llamastack_memory_kit.vector_memory import VectorMemory
else:
    __getattr__ = lazy_getattr(
        __name__,
        (".settings", ".filters", ".records", ".chunking", ".bank_memory", ".vector_memory", ".staged_storage"),
        __all__,
    )
