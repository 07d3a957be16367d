"""The config of the memory provider."""

from __future__ import annotations

from pydantic import Field

from llamastack_memory_kit.sqlite import SqliteConfig


class MemoryConfig(SqliteConfig):
    """Where the banks are, and how vectors and graphs are searched."""

    exact_up_to: int = Field(
        default=50_000,
        ge=0,
        description="Chunks of a bank up to which a query is compared with every vector. Larger banks get an HNSW "
        "index, which is faster and may miss some of the nearest chunks.",
    )
    graph_model: str | None = Field(
        default=None,
        min_length=1,
        description="A chat model that reads entities and relations out of documents of graph banks. Without it these "
        "documents must be JSON.",
    )
    graph_depth: int = Field(
        default=1,
        ge=0,
        le=8,
        description="Relations between an entity that a query names and the farthest one whose documents are found.",
    )
