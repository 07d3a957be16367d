"""The provider: four types of banks in one SQLite file."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import ClassVar, TypeVar, cast
from uuid import uuid4

import anyio.to_thread
import numpy as np
from apsw import Connection

from llamastack.provider import Deps, InvalidRequestError
from llamastack_memory_kit import Bank, ChunkSize, FoundChunk, Insert, Query, SearchMode, StoredChunk
from llamastack_memory_kit.sqlite import BankRow, SqliteMemory
from llamastack_provider_meta_reference.memory.config import MemoryConfig
from llamastack_provider_meta_reference.memory.indexes import BehindError, Indexes, bring_up_to_date
from llamastack_provider_meta_reference.memory.knowledge_graph import (
    Graph,
    GraphChunk,
    by_nearness,
    extract_graph,
    named_in,
    read_graph,
)
from llamastack_provider_meta_reference.memory.vector_index import VectorIndex, of_length_1

_T = TypeVar("_T")
_WHOLE = ChunkSize(2**31 - 1)
_TRIES = 8
_AT_ONCE = 4096
_SCHEMA = """
CREATE TABLE vector_banks (bank INTEGER PRIMARY KEY, uid TEXT NOT NULL, removals INTEGER NOT NULL DEFAULT 0);
CREATE TABLE vectors (chunk INTEGER PRIMARY KEY, bank INTEGER NOT NULL, vector BLOB NOT NULL);
CREATE INDEX vectors_of_banks ON vectors (bank, chunk);
CREATE TABLE mentions (bank INTEGER, entity TEXT, chunk INTEGER, PRIMARY KEY (bank, entity, chunk)) WITHOUT ROWID;
CREATE INDEX mentions_of_chunks ON mentions (chunk);
CREATE TABLE links (
    bank INTEGER, entity TEXT, other TEXT, chunk INTEGER, PRIMARY KEY (bank, entity, other, chunk)
) WITHOUT ROWID;
CREATE INDEX links_of_chunks ON links (chunk);
"""
_Only = tuple[str, list[object]] | None


class MetaReferenceMemory(SqliteMemory):
    """Vector, keyword, keyvalue and graph banks. Many processes may use the file; each has its own indexes of it."""

    bank_types: ClassVar[tuple[str, ...]] = ("vector", "keyword", "keyvalue", "graph")
    file_kind: ClassVar[int] = 0x4C4D4D52  # "LMMR"
    modes: ClassVar[Mapping[str, Sequence[SearchMode]]] = {
        "vector": ("vector", "keyword"),
        "keyvalue": (),
        "graph": (),
    }

    def __init__(self, config: MemoryConfig, deps: Deps) -> None:
        """Raises ValueError if the tokenizer file cannot be read."""
        super().__init__(config, deps, schema=_SCHEMA)
        self._config = config
        self._indexes = Indexes(config.path, config.exact_up_to)
        self._growing = ThreadPoolExecutor(1, "memory-index")

    async def open(self) -> None:
        """Open the file and load the indexes. Raises ProviderUnavailableError or BackendError."""
        await super().open()
        await self.file.read(self._load_indexes)

    async def close(self) -> None:
        """Close the file, after what runs in the background."""
        self._indexes.stop()
        await anyio.to_thread.run_sync(self._growing.shutdown)
        await super().close()

    def score_name(self, bank: Bank, mode: SearchMode) -> str:
        """`key` and `graph` for the banks that have no modes."""
        return {"keyvalue": "key", "graph": "graph"}.get(bank.definition.type) or super().score_name(bank, mode)

    def chunk_size(self, bank: Bank) -> ChunkSize:
        """Documents of keyvalue and graph banks stay whole."""
        return _WHOLE if bank.definition.type in ("keyvalue", "graph") else super().chunk_size(bank)

    # ---- what changes -----------------------------------------------------------------------------------------------

    def make_tables(self, connection: Connection, row: BankRow, bank: Bank) -> None:
        """Note a new vector bank."""
        if row.dimension:
            connection.execute("INSERT INTO vector_banks (bank, uid) VALUES (?, ?)", (row.id, uuid4().hex))

    def drop_tables(self, connection: Connection, row: BankRow) -> None:
        """Remove all that the bank has."""
        for table in ("vector_banks", "vectors", "mentions", "links"):
            connection.execute(f"DELETE FROM {table} WHERE bank = ?", (row.id,))
        self._indexes.forget(row.id)

    def add(self, connection: Connection, row: BankRow, numbered: Sequence[tuple[int, StoredChunk]]) -> None:
        """Keep the vectors, of length 1 and 32-bit numbers, or the entities and relations."""
        if row.dimension:
            for first in range(0, len(numbered), _AT_ONCE):
                some = numbered[first : first + _AT_ONCE]
                units = of_length_1(np.array([chunk.vector for _, chunk in some], np.float32))
                rows = ((id_, row.id, unit.tobytes()) for (id_, _), unit in zip(some, units, strict=True))
                connection.executemany("INSERT INTO vectors (chunk, bank, vector) VALUES (?, ?, ?)", rows)
        for id_, chunk in numbered:
            if isinstance(chunk, GraphChunk) and chunk.graph is not None:
                mentions = ((row.id, entity, id_) for entity in chunk.graph.mentions())
                connection.executemany("INSERT INTO mentions VALUES (?, ?, ?)", mentions)
                pairs = {*chunk.graph.links()}
                links = ((row.id, *pair, id_) for pair in pairs | {(target, source) for source, target in pairs})
                connection.executemany("INSERT INTO links VALUES (?, ?, ?, ?)", links)

    def remove(self, connection: Connection, row: BankRow, ids: Sequence[int]) -> None:
        """Remove what belongs to chunks."""
        tables = ("vectors",) if row.dimension else ("mentions", "links")
        for table in tables:
            connection.executemany(f"DELETE FROM {table} WHERE chunk = ?", ((id_,) for id_ in ids))
        if row.dimension:
            connection.execute("UPDATE vector_banks SET removals = removals + 1 WHERE bank = ?", (row.id,))

    async def store(self, bank: Bank, insert: Insert) -> None:
        """As in `SqliteMemory`. Documents of graph banks are read before.

        Raises InvalidRequestError for one that is no graph, if the config names no model, and the model's errors.
        """
        if bank.definition.type == "graph":
            insert = await self._with_graphs(insert)
        await super().store(bank, insert)

    async def _with_graphs(self, insert: Insert) -> Insert:
        chunks = []
        for chunk in insert.chunks:
            kept = {field.name: getattr(chunk, field.name) for field in fields(StoredChunk)}
            chunks.append(GraphChunk(**kept, graph=await self._graph(chunk, insert)))
        return Insert(insert.document_ids, chunks, insert.generation, insert.now, insert.expires_at, insert.key)

    async def _graph(self, chunk: StoredChunk, insert: Insert) -> Graph:
        try:
            return await anyio.to_thread.run_sync(read_graph, chunk.content)
        except ValueError as error:
            model = self._config.graph_model
            if model is not None and self._inference is not None:
                return await extract_graph(self._inference, model, chunk.content)
            place = insert.document_ids.index(chunk.document_id)
            raise InvalidRequestError(
                f"documents[{place}].content: document '{chunk.document_id}' {error}; allowed in a graph bank: "
                '{"entities": [{"name": ...}], "relations": [{"from": ..., "relation": ..., "to": ...}]}, or any text '
                "if the provider's config names a graph_model",
                param=f"documents[{place}].content",
                provider_id=self.provider_id,
            ) from None

    # ---- queries ----------------------------------------------------------------------------------------------------

    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        """As in `SqliteMemory`."""
        return await self._again(lambda: super(MetaReferenceMemory, self).search(bank, query))

    async def search_both(self, bank: Bank, query: Query) -> tuple[list[FoundChunk], list[FoundChunk]]:
        """As in `SqliteMemory`."""
        return await self._again(lambda: super(MetaReferenceMemory, self).search_both(bank, query))

    async def _again(self, search: Callable[[], Awaitable[_T]]) -> _T:
        """Search in a later state of the file while the index is already newer than what was read."""
        for _ in range(_TRIES):
            try:
                return await search()
            except BehindError:
                continue
        return await search()

    def search_vectors(
        self, connection: Connection, row: BankRow, query: Query, only: _Only
    ) -> list[tuple[int, float]]:
        """The nearest by FAISS. What has changed in the file is taken over before."""
        ids = None if only is None else np.array(connection.execute(*only).fetchall(), np.int64).reshape(-1)
        index = self._indexes.current(connection, row)
        with index.lock:
            bring_up_to_date(index, connection, row)
            found = index.search(np.array(query.vector, np.float32), query.max_chunks, ids)
        self._grow(connection, row, index)
        return found

    def search_otherwise(
        self, connection: Connection, row: BankRow, bank: Bank, query: Query, only: _Only
    ) -> list[tuple[int, float]]:
        """The document of a key, or the documents of entities and of their neighbours."""
        among, arguments = ("", []) if only is None else (f" AND chunk IN ({only[0]})", only[1])
        if bank.definition.type == "keyvalue":
            sql = "SELECT id FROM (SELECT id, id AS chunk FROM chunks WHERE bank = ? AND document_id = ?) WHERE true"
            found = connection.execute(sql + among, (row.id, query.text, *arguments)).fetchall()
            return [(cast(int, id_), 1.0) for (id_,) in found]
        near: list[tuple[int, int]] = []
        edge = seen = {*named_in(query.text)}
        for distance in range(self._config.graph_depth + 1):
            given = (row.id, json.dumps([*edge]), *arguments)
            entities = f"WHERE bank = ? AND entity IN (SELECT value FROM json_each(?)){among}"
            chunks = connection.execute(f"SELECT DISTINCT chunk FROM mentions {entities} ORDER BY chunk", given)
            near += [(cast(int, id_), distance) for (id_,) in chunks]
            others = connection.execute(f"SELECT DISTINCT other FROM links {entities}", given)
            edge = {str(other) for (other,) in others} - seen
            seen = seen | edge
        return by_nearness(near, query.max_chunks)

    def _load_indexes(self, connection: Connection) -> None:
        rows = connection.execute("SELECT id, dimension, changes FROM banks WHERE dimension > 0").fetchall()
        for row in (BankRow(*cast(tuple[int, int, int], each)) for each in rows):
            index = self._indexes.current(connection, row)
            with index.lock:
                bring_up_to_date(index, connection, row)
            self._grow(connection, row, index)

    def _grow(self, connection: Connection, row: BankRow, index: VectorIndex) -> None:
        if index.must_grow and self._indexes.claim(row.id):
            uid = connection.execute("SELECT uid FROM vector_banks WHERE bank = ?", (row.id,)).get
            self._growing.submit(self._indexes.grow, row.id, str(uid))


async def get_provider_impl(config: MemoryConfig, deps: Deps) -> MetaReferenceMemory:
    """Make the provider; `initialize` opens the file."""
    return MetaReferenceMemory(config, deps)
