"""The store `memory` of a run config: it forgets everything when the process ends."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from llamastack.provider import memory_store


class MemoryStoreConfig(BaseModel):
    """It has no settings."""

    model_config = ConfigDict(extra="forbid")


class MemoryStore(memory_store.MemoryStore):
    config_class = MemoryStoreConfig

    def __init__(self, config: MemoryStoreConfig, folder: Path | None) -> None:
        super().__init__()
