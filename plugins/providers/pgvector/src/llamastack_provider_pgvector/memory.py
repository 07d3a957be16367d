"""The provider: vector memory banks, one table of chunks each."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, LiteralString

import anyio.to_thread
from pgvector import Vector
from psycopg import sql
from psycopg.rows import TupleRow

from llamastack.api.memory_banks import VectorMemoryBank
from llamastack.provider import ConflictError, Deps, NotFoundError
from llamastack_memory_kit import (
    Bank,
    FoundChunk,
    Insert,
    Query,
    SearchMode,
    StoredChunk,
    VectorMemory,
    definition_of,
)
from llamastack_provider_pgvector.config import PgvectorConfig
from llamastack_provider_pgvector.database import Connection, Database
from llamastack_provider_pgvector.filter_sql import Condition, condition_of
from llamastack_provider_pgvector.statements import Statements
from llamastack_provider_pgvector.texts import escaped, fields, unescaped, words

_MOST_DIMENSIONS = 16_000
_EVERYTHING: Condition = (sql.SQL("true"), [])


class PgvectorMemory(VectorMemory):
    """The memory provider. A bank is a table; any number of processes share the database."""

    modes: ClassVar[Mapping[str, Sequence[SearchMode]]] = {"vector": ("vector", "keyword")}
    filters: ClassVar[bool] = True
    keyword_scores: ClassVar[str] = "ts_rank_cd"

    def __init__(self, config: PgvectorConfig, deps: Deps) -> None:
        """Raises ValueError if the tokenizer file cannot be read."""
        super().__init__(config, deps)
        self._config = config
        self._database = Database(config, deps.provider_id)

    async def open(self) -> None:
        """Make the pool of connections. The server need not be up yet."""
        await self._database.open()

    async def close(self) -> None:
        """Close the connections."""
        await self._database.close()

    async def health(self) -> None:
        """Ask the server. Raises ProviderUnavailableError, AuthenticationError ... if it does not serve."""

        async def ask(connection: Connection) -> None:
            await connection.execute(self._on_banks("SELECT FROM {banks} LIMIT 1"))

        await self._database.run(ask)

    # ---- banks --------------------------------------------------------------------------------------------------

    async def list_banks(self) -> list[Bank]:
        """The banks of the schema, including those of other processes."""
        statement = self._on_banks("SELECT definition, dimension FROM {banks} ORDER BY made_at, identifier")

        async def read(connection: Connection) -> list[TupleRow]:
            return await (await connection.execute(statement)).fetchall()

        return [_to_bank(row) for row in await self._database.run(read)]

    async def find_bank(self, identifier: str) -> Bank | None:
        """One bank as it is now."""
        statement = self._on_banks("SELECT definition, dimension FROM {banks} WHERE identifier = %s")

        async def read(connection: Connection) -> TupleRow | None:
            return await (await connection.execute(statement, [escaped(identifier)])).fetchone()

        row = await self._database.run(read)
        return None if row is None else _to_bank(row)

    async def create_bank(self, bank: Bank) -> None:
        """Make the bank's row and its table. Raises ConflictError for vectors that pgvector does not keep."""
        if bank.dimension > _MOST_DIMENSIONS:
            raise ConflictError(
                f"vectors of {bank.dimension} numbers; pgvector keeps at most {_MOST_DIMENSIONS}",
                provider_id=self.provider_id,
            )
        insert = self._on_banks(
            "INSERT INTO {banks} (identifier, definition, dimension, text_search) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT DO NOTHING RETURNING 1"
        )
        values = [
            escaped(bank.identifier),
            json.dumps(definition_of(bank.definition)),
            bank.dimension,
            self._config.text_search,
        ]

        async def make(connection: Connection) -> None:
            async with connection.transaction():
                if await (await connection.execute(insert, values)).fetchone() is None:
                    return  # another process made it; this has waited for its transaction
                for statement in self._statements(bank).make_table():
                    await connection.execute(statement)

        await self._database.run(make)

    async def drop_bank(self, bank: Bank) -> None:
        """Remove the bank's row and its table."""
        remove = self._on_banks("DELETE FROM {banks} WHERE identifier = %s")

        async def drop(connection: Connection) -> None:
            async with connection.transaction():
                await connection.execute(remove, [escaped(bank.identifier)])
                chunks = self._statements(bank).chunks
                await connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(chunks))

        await self._database.run(drop)

    # ---- chunks -------------------------------------------------------------------------------------------------

    async def store(self, bank: Bank, insert: Insert) -> None:
        """Replace the documents' chunks in one transaction, while no other writes into this bank."""
        rows = await anyio.to_thread.run_sync(_to_rows, insert)
        await self._database.run(lambda connection: self._store(connection, bank, insert, rows))

    async def _store(self, connection: Connection, bank: Bank, insert: Insert, rows: list[list[object]]) -> None:
        statements = self._statements(bank)
        milliseconds = str(int(self._config.insert_timeout * 1000))
        async with connection.transaction():
            await connection.execute("SELECT set_config('statement_timeout', %s, true)", [milliseconds])
            text_search, indexed = await self._lock(connection, bank)
            expired = sql.SQL("DELETE FROM {} WHERE expires_at <= %s").format(statements.chunks)
            await connection.execute(expired, [insert.now])
            await _delete(connection, statements, insert.document_ids)
            if rows:
                async with connection.cursor() as cursor:
                    await cursor.executemany(statements.insert(text_search), rows)
            if not indexed and statements.can_be_indexed:
                await self._index(connection, bank, statements)

    async def _index(self, connection: Connection, bank: Bank, statements: Statements) -> None:
        """Make the index of vectors if the bank has grown large enough."""
        count = sql.SQL("SELECT count(*) FROM (SELECT FROM {} LIMIT %s) AS counted").format(statements.chunks)
        row = await (await connection.execute(count, [self._config.index_from])).fetchone()
        if row is None or row[0] < self._config.index_from:
            return
        await connection.execute(statements.make_index(self._config.hnsw_m, self._config.hnsw_ef_construction))
        made = self._on_banks("UPDATE {banks} SET indexed = true WHERE identifier = %s")
        await connection.execute(made, [escaped(bank.identifier)])

    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        """The most similar chunks, or those with the words of the query, that have not expired."""
        return await self._database.run(lambda connection: self._search(connection, bank, query, query.mode))

    async def search_both(self, bank: Bank, query: Query) -> tuple[list[FoundChunk], list[FoundChunk]]:
        """Both searches of one state of the bank."""

        async def both(connection: Connection) -> tuple[list[FoundChunk], list[FoundChunk]]:
            async with connection.transaction():
                await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                by_vector = await self._search(connection, bank, query, "vector")
                return by_vector, await self._search(connection, bank, query, "keyword")

        return await self._database.run(both)

    async def _search(self, connection: Connection, bank: Bank, query: Query, mode: SearchMode) -> list[FoundChunk]:
        statements = self._statements(bank)
        condition, values = _EVERYTHING if query.filter is None else condition_of(query.filter)
        if mode == "keyword":
            # Each word is letters and digits alone, so that nothing in it is syntax of a query.
            wanted = " | ".join(f"'{word}'" for word in dict.fromkeys(words(query.text)))
            given = [escaped(bank.identifier), wanted, query.now, *values, query.max_chunks]
            rows = await (await connection.execute(statements.by_words(condition), given)).fetchall()
            return [_to_found(row) for row in rows]
        vector = Vector([*query.vector])
        given = [vector, query.now, *values, vector, query.max_chunks]
        rows = await (await connection.execute(statements.by_vector(condition, exact=False), given)).fetchall()
        if len(rows) < query.max_chunks:
            # The index stops after `hnsw.max_scan_tuples`, and holds no vectors of zeros.
            rows = await (await connection.execute(statements.by_vector(condition, exact=True), given)).fetchall()
        return [_to_found(row) for row in rows]

    async def delete(self, bank: Bank, document_ids: Sequence[str]) -> None:
        """Remove the documents' chunks."""

        async def remove(connection: Connection) -> None:
            async with connection.transaction():
                await self._lock(connection, bank)
                await _delete(connection, self._statements(bank), document_ids)

        await self._database.run(remove)

    # ---- helpers ------------------------------------------------------------------------------------------------

    async def _lock(self, connection: Connection, bank: Bank) -> tuple[str, bool]:
        """Keep other writers out of the bank until the transaction ends. Its text search, and whether it has an index.

        A second writer of the same document would not see the chunks of the first one, and would leave them.
        """
        statement = self._on_banks(
            "SELECT text_search, indexed, definition, dimension FROM {banks} WHERE identifier = %s FOR NO KEY UPDATE"
        )
        row = await (await connection.execute(statement, [escaped(bank.identifier)])).fetchone()
        if row is None:
            raise NotFoundError(f"no bank '{bank.identifier}'", provider_id=self.provider_id)
        now = _to_bank(row[2:])
        if now.dimension != bank.dimension or not now.has_definition(bank.definition):
            raise ConflictError(
                f"memory bank '{bank.identifier}' was made again, with another definition", provider_id=self.provider_id
            )
        return row[0], row[1]

    def _statements(self, bank: Bank) -> Statements:
        return Statements(self._config.schema_name, bank)

    def _on_banks(self, statement: LiteralString) -> sql.Composed:
        return sql.SQL(statement).format(banks=sql.Identifier(self._config.schema_name, "banks"))


async def _delete(connection: Connection, statements: Statements, document_ids: Sequence[str]) -> None:
    statement = sql.SQL("DELETE FROM {} WHERE document = ANY (%s::text[])").format(statements.chunks)
    await connection.execute(statement, [[escaped(each) for each in document_ids]])


def _to_bank(row: TupleRow) -> Bank:
    return Bank(VectorMemoryBank.model_validate_json(row[0]), row[1])


def _to_rows(insert: Insert) -> list[list[object]]:
    known: dict[int, tuple[str, str]] = {}  # the chunks of a document share its metadata
    rows: list[list[object]] = []
    for chunk in insert.chunks:
        kept = known.get(id(chunk.metadata))
        if kept is None:
            kept = known[id(chunk.metadata)] = json.dumps(chunk.metadata), fields(chunk.metadata)
        row = [escaped(chunk.document_id), chunk.index, escaped(chunk.content), escaped(chunk.prefix)]
        row += [chunk.token_count, *kept, insert.generation, insert.expires_at]
        rows.append([*row, " ".join(words(chunk.indexed_text)), Vector([*chunk.vector])])
    return rows


def _to_found(row: TupleRow) -> FoundChunk:
    document, place, content, prefix, tokens, metadata, generation, score = row
    chunk = StoredChunk(
        document_id=unescaped(document),
        content=unescaped(content),
        token_count=tokens,
        metadata=json.loads(metadata),
        index=place,
        generation=generation,
        prefix=unescaped(prefix),
    )
    # A vector of zeros has no direction, so PostgreSQL gives no number.
    return FoundChunk(chunk, 0.0 if math.isnan(score) else score)


async def get_adapter_impl(config: PgvectorConfig, deps: Deps) -> PgvectorMemory:
    """Make the provider; `initialize` opens it."""
    return PgvectorMemory(config, deps)
