"""A store that forgets everything when the process ends."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from llamastack.stack.stores import StoredObject


class MemoryStoreConfig(BaseModel):
    """It has no settings."""

    model_config = ConfigDict(extra="forbid")


class MemoryStore:
    config_class = MemoryStoreConfig
    shared: ClassVar[bool] = False

    def __init__(self, config: MemoryStoreConfig, folder: Path | None) -> None:
        self._rows: dict[tuple[str, str], tuple[int, StoredObject]] = {}
        self._sequence = 0

    async def open(self) -> None:
        """Nothing to do."""

    async def changes_since(self, sequence: int) -> tuple[int, list[StoredObject]]:
        # No other worker must learn what was deleted: only the last state counts.
        return self._sequence, [item for number, item in self._rows.values() if number > sequence]

    async def put(self, item: StoredObject, *, replace: bool = False) -> bool:
        key = (item.kind, item.identifier)
        if key in self._rows and not replace:
            return False
        self._sequence += 1
        self._rows[key] = (self._sequence, item)
        return True

    async def delete(self, kind: str, identifier: str) -> bool:
        return self._rows.pop((kind, identifier), None) is not None

    async def close(self) -> None:
        """Nothing to do."""
