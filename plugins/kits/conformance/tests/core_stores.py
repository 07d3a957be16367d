"""How the suite of stores works with the stores of the core."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path

import anyio.to_thread

from llamastack.provider.store import Store
from llamastack_conformance import StoreConformance


class SqliteConformance(StoreConformance):
    """The checks of a store whose file is `registry.sqlite`."""

    store_type = "sqlite"

    def lock(self, folder: Path) -> AbstractAsyncContextManager[None]:
        return _write_lock(folder / "registry.sqlite")

    async def fill(self, store: Store, folder: Path, kind: str, count: int) -> None:
        await anyio.to_thread.run_sync(_fill, folder / "registry.sqlite", kind, count)


class MemoryConformance(StoreConformance):
    store_type = "memory"


@asynccontextmanager
async def _write_lock(file: Path) -> AsyncIterator[None]:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def _fill(file: Path, kind: str, count: int) -> None:
    rows = ((kind, f"{number:06}", f'{{"number": {number}}}') for number in range(count))
    with closing(sqlite3.connect(file)) as other, other:
        other.executemany("INSERT INTO records (kind, key, value) VALUES (?, ?, ?)", rows)
