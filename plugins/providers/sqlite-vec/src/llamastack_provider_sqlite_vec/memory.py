"""The provider: vectors in tables of sqlite-vec (https://alexgarcia.xyz/sqlite-vec/features/knn.html)."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import ClassVar

import sqlite_vec
from apsw import Connection

from llamastack.provider import Deps
from llamastack_memory_kit import Bank, Query, SearchMode, StoredChunk
from llamastack_memory_kit.sqlite import BankRow, SqliteConfig, SqliteMemory


class SqliteVecMemory(SqliteMemory):
    """Vector banks, which can be searched by words, too, and keyword banks. A query compares all vectors of a bank."""

    file_kind: ClassVar[int] = 0x4C4D5356  # "LMSV"
    modes: ClassVar[Mapping[str, Sequence[SearchMode]]] = {"vector": ("vector", "keyword")}

    def load(self, connection: Connection) -> None:
        """Load sqlite-vec into a new connection, and nothing else from then on."""
        connection.enable_load_extension(True)
        connection.load_extension(sqlite_vec.loadable_path())
        connection.enable_load_extension(False)

    def make_tables(self, connection: Connection, row: BankRow, bank: Bank) -> None:
        """A table for the vectors of a vector bank."""
        if row.dimension:
            column = f"vector float[{row.dimension}] distance_metric=cosine"
            connection.execute(f"CREATE VIRTUAL TABLE vectors_{row.id} USING vec0({column})")

    def drop_tables(self, connection: Connection, row: BankRow) -> None:
        """Remove the table."""
        connection.execute(f"DROP TABLE IF EXISTS vectors_{row.id}")

    def add(self, connection: Connection, row: BankRow, numbered: Sequence[tuple[int, StoredChunk]]) -> None:
        """Keep the vectors, of 32-bit numbers."""
        if not row.dimension:
            return
        rows = ((id_, _packed(chunk.vector)) for id_, chunk in numbered)
        connection.executemany(f"INSERT INTO vectors_{row.id} (rowid, vector) VALUES (?, ?)", rows)

    def remove(self, connection: Connection, row: BankRow, ids: Sequence[int]) -> None:
        """Remove the vectors."""
        if not row.dimension:
            return
        connection.executemany(f"DELETE FROM vectors_{row.id} WHERE rowid = ?", ((id_,) for id_ in ids))

    def search_vectors(
        self, connection: Connection, row: BankRow, query: Query, only: tuple[str, list[object]] | None
    ) -> list[tuple[int, float]]:
        """Exact: the distance of every vector that may be found."""
        sql = f"SELECT rowid, distance FROM vectors_{row.id} WHERE vector MATCH ? AND k = ?"
        arguments: list[object] = [_packed(query.vector), query.max_chunks]
        if only is not None:
            sql, arguments = f"{sql} AND rowid IN ({only[0]})", [*arguments, *only[1]]
        # A vector of zeros has no direction, and its distance is NULL.
        return [
            (id_, 0.0 if distance is None else 1 - distance) for id_, distance in connection.execute(sql, arguments)
        ]


def _packed(vector: Sequence[float]) -> bytes:
    return array("f", vector).tobytes()


async def get_provider_impl(config: SqliteConfig, deps: Deps) -> SqliteVecMemory:
    """Make the provider; `initialize` opens the file."""
    return SqliteVecMemory(config, deps)
