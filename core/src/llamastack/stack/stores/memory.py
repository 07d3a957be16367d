"""A store that forgets everything when the process ends."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from llamastack.stack.stores import StoredObject


class MemoryStoreConfig(BaseModel):
    """It has no settings."""

    model_config = ConfigDict(extra="forbid")


class MemoryStore:
    config_class = MemoryStoreConfig

    def __init__(self, config: MemoryStoreConfig, folder: Path | None) -> None:
        self._log: list[StoredObject] = []
        self._present: set[tuple[str, str]] = set()

    async def open(self) -> None:
        """Nothing to do."""

    async def changes_since(self, sequence: int) -> tuple[int, list[StoredObject]]:
        return len(self._log), self._log[sequence:]

    async def put(self, item: StoredObject) -> bool:
        key = (item.kind, item.identifier)
        if key in self._present:
            return False
        self._present.add(key)
        self._log.append(item)
        return True

    async def delete(self, kind: str, identifier: str) -> bool:
        key = (kind, identifier)
        if key not in self._present:
            return False
        self._present.discard(key)
        self._log.append(StoredObject(kind, identifier, "", None))
        return True

    async def close(self) -> None:
        """Nothing to do."""
