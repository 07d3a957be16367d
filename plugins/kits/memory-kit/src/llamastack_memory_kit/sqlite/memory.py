"""The base of memory providers whose banks are in one SQLite file: chunks, words, filters and expiry."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

from apsw import Connection
from pydantic import Field

from llamastack.provider import ConflictError, Deps, InvalidRequestError, NotFoundError
from llamastack_memory_kit.flat_records import bank_from_text, bank_to_text
from llamastack_memory_kit.records import Bank, FoundChunk, Insert, Query, StoredChunk
from llamastack_memory_kit.settings import EmbeddingSettings, ExpandedPath
from llamastack_memory_kit.sqlite.file import SqliteFile
from llamastack_memory_kit.sqlite.filters import where
from llamastack_memory_kit.vector_memory import VectorMemory

_VERSION = 1
_SCHEMA = """
CREATE TABLE banks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    identifier TEXT NOT NULL UNIQUE,
    bank TEXT NOT NULL,
    dimension INTEGER NOT NULL,
    changes INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    bank INTEGER NOT NULL REFERENCES banks,
    document_id TEXT NOT NULL,
    chunk_index INTEGER NOT NULL,
    content TEXT NOT NULL,
    prefix TEXT NOT NULL,
    token_count INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    generation INTEGER NOT NULL,
    expires_at REAL
);
CREATE INDEX chunks_of_documents ON chunks (bank, document_id);
CREATE INDEX chunks_that_expire ON chunks (bank, expires_at) WHERE expires_at IS NOT NULL;
"""
_COLUMNS = "chunks.document_id, content, chunks.token_count, metadata, chunk_index, generation, prefix"
_WORD = re.compile(r"\w+")
_MOST_WORDS = 10_000  # the time that FTS5 takes grows with the square: 0.1 s for these
_DELETED_AT_ONCE = 500


class SqliteConfig(EmbeddingSettings):
    """The base of the config of a provider whose banks are in one SQLite file."""

    path: ExpandedPath = Field(
        description="The SQLite file. Several processes of one machine may use it at the same time; a network file "
        "system cannot hold it.",
        json_schema_extra={"x-writes": "file"},
    )
    keyword_tokenizer: str = Field(
        default="porter unicode61 remove_diacritics 2",
        pattern=r"^(porter )?(unicode61( remove_diacritics [012])?|ascii|trigram)$",
        description="How texts are cut into words for searches by words: a tokenizer of SQLite's FTS5. `porter` takes "
        "the forms of an English word for one; `trigram` is for scripts without spaces. It counts for banks made "
        "from then on.",
    )


@dataclass(frozen=True, slots=True)
class BankRow:
    """A bank in the file.

    id: its number, which no other bank ever had. dimension: the length of its vectors, 0 without an embedding model.
    changes: how often its chunks were changed.
    """

    id: int
    dimension: int
    changes: int = 0


class SqliteMemory(VectorMemory):
    """Banks in one SQLite file, of any process. Words are searched by FTS5; a provider adds what searches vectors.

    It implements `search_vectors`, and may implement `search_otherwise`, `make_tables`, `drop_tables`, `add` and
    `remove`. All of them run in threads, within a transaction.
    """

    filters: ClassVar[bool] = True
    bank_types: ClassVar[tuple[str, ...]] = ("vector", "keyword")
    file_kind: ClassVar[int]
    """The `application_id` of its files (https://sqlite.org/fileformat.html), which no other provider uses."""

    def __init__(self, config: SqliteConfig, deps: Deps, *, schema: str = "") -> None:
        """What is in the file. schema: SQL of more tables. Raises ValueError if the tokenizer file cannot be read."""
        super().__init__(config, deps)
        self._tokenizer = config.keyword_tokenizer
        self.file: SqliteFile = SqliteFile(
            config.path,
            deps.provider_id,
            kind=self.file_kind,
            schema=_SCHEMA + schema,
            version=_VERSION,
            load=self.load,
        )
        """The file itself."""

    # ---- what a provider implements -----------------------------------------------------------------------------

    def load(self, connection: Connection) -> None:
        """Prepare a new connection, such as by loading an extension."""

    def make_tables(self, connection: Connection, row: BankRow, bank: Bank) -> None:
        """Make more tables for a new bank."""

    def drop_tables(self, connection: Connection, row: BankRow) -> None:
        """Remove these tables."""

    def add(self, connection: Connection, row: BankRow, numbered: Sequence[tuple[int, StoredChunk]]) -> None:
        """Keep the vectors of new chunks. numbered: the chunks, with their ids in the table `chunks`."""

    def remove(self, connection: Connection, row: BankRow, ids: Sequence[int]) -> None:
        """Remove the vectors of chunks."""

    @abstractmethod
    def search_vectors(
        self, connection: Connection, row: BankRow, query: Query, only: tuple[str, list[object]] | None
    ) -> Sequence[tuple[int, float]]:
        """The ids of the nearest chunks, with their cosine similarities.

        only: SQL of a query for the ids of all chunks that may be found, with its arguments; None: all of the bank.
        """

    def search_otherwise(
        self, connection: Connection, row: BankRow, bank: Bank, query: Query, only: tuple[str, list[object]] | None
    ) -> Sequence[tuple[int, float]]:
        """The ids of the chunks that are found in a bank whose type has no mode in `modes`, with their scores.

        only: as in `search_vectors`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no search for banks of type {bank.definition.type}")

    # ---- banks ------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the file. Raises ProviderUnavailableError or BackendError."""
        await self.file.open()

    async def close(self) -> None:
        """Close the file."""
        await self.file.close()

    async def health(self) -> None:
        """Read the file. Raises ProviderUnavailableError or BackendError if it cannot be read."""
        await self.file.read(lambda db: db.execute("SELECT count(*) FROM banks").fetchall())

    async def list_banks(self) -> list[Bank]:
        """The banks in the file, those of other processes too."""
        rows = await self.file.read(lambda db: db.execute("SELECT bank FROM banks ORDER BY id").fetchall())
        return [bank_from_text(text) for (text,) in rows]

    async def find_bank(self, identifier: str) -> Bank | None:
        """One bank in the file."""
        sql = "SELECT bank FROM banks WHERE identifier = ?"
        rows = await self.file.read(lambda db: db.execute(sql, (identifier,)).fetchall())
        return bank_from_text(rows[0][0]) if rows else None

    async def create_bank(self, bank: Bank) -> None:
        """Make the bank and its tables. A bank that another process made in the meantime stays."""

        def make(db: Connection) -> None:
            values = (bank.identifier, bank_to_text(bank), bank.dimension)
            db.execute("INSERT OR IGNORE INTO banks (identifier, bank, dimension) VALUES (?, ?, ?)", values)
            if db.changes():
                row = BankRow(db.last_insert_rowid(), bank.dimension)
                db.execute(
                    f"CREATE VIRTUAL TABLE words_{row.id} USING fts5(text, content = '', contentless_delete = 1, "
                    f"tokenize = '{self._tokenizer}')"
                )
                self.make_tables(db, row, bank)

        await self.file.write(make)

    async def drop_bank(self, bank: Bank) -> None:
        """Remove the bank, its chunks and its tables."""

        def drop(db: Connection) -> None:
            for row in _rows(db, bank):
                self.drop_tables(db, row)
                db.execute(f"DROP TABLE words_{row.id}")
                db.execute("DELETE FROM chunks WHERE bank = ?", (row.id,))
                db.execute("DELETE FROM banks WHERE id = ?", (row.id,))

        await self.file.write(drop)

    # ---- chunks -----------------------------------------------------------------------------------------------------

    async def store(self, bank: Bank, insert: Insert) -> None:
        """Replace the chunks of the documents, in one transaction. Expired chunks of the bank are removed, too."""

        def replace(db: Connection) -> None:
            row = self.row(db, bank)
            self._remove(db, row, "bank = ? AND expires_at <= ?", (row.id, insert.now))
            self._remove_documents(db, row, insert.document_ids)
            numbered = [(_add(db, row, chunk, insert), chunk) for chunk in insert.chunks]
            texts = ((id_, _searchable(chunk.indexed_text)) for id_, chunk in numbered)
            db.executemany(f"INSERT INTO words_{row.id} (rowid, text) VALUES (?, ?)", texts)
            self.add(db, row, numbered)
            _changed(db, row)

        await self.file.write(replace)

    async def delete(self, bank: Bank, document_ids: Sequence[str]) -> None:
        """Remove the documents, in one transaction."""

        def remove(db: Connection) -> None:
            row = self.row(db, bank)
            self._remove_documents(db, row, document_ids)
            _changed(db, row)

        await self.file.write(remove)

    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        """The best chunks by vectors or by words."""
        return await self.file.read(lambda db: self._search(db, self.row(db, bank), bank, query))

    async def search_both(self, bank: Bank, query: Query) -> tuple[list[FoundChunk], list[FoundChunk]]:
        """Both searches, of one state of the file."""

        def find(db: Connection) -> tuple[list[FoundChunk], list[FoundChunk]]:
            row = self.row(db, bank)
            return self._search(db, row, bank, query), _by_words(db, row, query)

        return await self.file.read(find)

    def row(self, connection: Connection, bank: Bank) -> BankRow:
        """The bank in the file. Raises NotFoundError, and ConflictError if it was made again in another way."""
        rows = _rows(connection, bank)
        if not rows:
            raise NotFoundError(f"there is no memory bank '{bank.identifier}'", provider_id=self.provider_id)
        if connection.execute("SELECT bank FROM banks WHERE id = ?", (rows[0].id,)).get != bank_to_text(bank):
            raise ConflictError(f"memory bank '{bank.identifier}' was replaced", provider_id=self.provider_id)
        return rows[0]

    def _search(self, db: Connection, row: BankRow, bank: Bank, query: Query) -> list[FoundChunk]:
        if not self.modes_of(bank):
            ids = self.search_otherwise(db, row, bank, query, _only(db, row, query))
        elif query.mode == "keyword":
            return _by_words(db, row, query)
        else:
            ids = self.search_vectors(db, row, query, _only(db, row, query))
        found: list[FoundChunk] = []
        for id_, score in ids:
            for fields in db.execute(f"SELECT {_COLUMNS} FROM chunks WHERE id = ?", (id_,)):
                found.append(FoundChunk(_chunk(*fields), score))
        return found

    def _remove_documents(self, db: Connection, row: BankRow, document_ids: Sequence[str]) -> None:
        for first in range(0, len(document_ids), _DELETED_AT_ONCE):
            some = document_ids[first : first + _DELETED_AT_ONCE]
            marks = ", ".join("?" * len(some))
            self._remove(db, row, f"bank = ? AND document_id IN ({marks})", (row.id, *some))

    def _remove(self, db: Connection, row: BankRow, condition: str, arguments: tuple[object, ...]) -> None:
        removed = db.execute(f"DELETE FROM chunks WHERE {condition} RETURNING id", arguments).fetchall()
        ids = [cast(int, id_) for (id_,) in removed]
        if ids:
            db.executemany(f"DELETE FROM words_{row.id} WHERE rowid = ?", ((id_,) for id_ in ids))
            self.remove(db, row, ids)


def _rows(db: Connection, bank: Bank) -> list[BankRow]:
    found = db.execute("SELECT id, dimension, changes FROM banks WHERE identifier = ?", (bank.identifier,))
    return [BankRow(*row) for row in found]


def _changed(db: Connection, row: BankRow) -> None:
    db.execute("UPDATE banks SET changes = changes + 1 WHERE id = ?", (row.id,))


def _add(db: Connection, row: BankRow, chunk: StoredChunk, insert: Insert) -> int:
    db.execute(
        "INSERT INTO chunks (bank, document_id, chunk_index, content, prefix, token_count, metadata, generation, "
        "expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            row.id,
            chunk.document_id,
            chunk.index,
            chunk.content,
            chunk.prefix,
            chunk.token_count,
            json.dumps(chunk.metadata),
            insert.generation,
            insert.expires_at,
        ),
    )
    return db.last_insert_rowid()


def _chunk(
    document_id: str, content: str, token_count: int, metadata: str, index: int, generation: int, prefix: str
) -> StoredChunk:
    return StoredChunk(document_id, content, token_count, json.loads(metadata), index, (), generation, prefix)


def _only(db: Connection, row: BankRow, query: Query) -> tuple[str, list[object]] | None:
    """The chunks that may be found; None: all of the bank, which is the usual case and the fastest."""
    expired = "SELECT 1 FROM chunks WHERE bank = ? AND expires_at <= ? LIMIT 1"
    if query.filter is None and not db.execute(expired, (row.id, query.now)).fetchall():
        return None
    conditions, arguments = _conditions(query)
    return f"SELECT id FROM chunks WHERE bank = ? AND {conditions}", [row.id, *arguments]


def _conditions(query: Query) -> tuple[str, list[object]]:
    conditions, arguments = "(expires_at IS NULL OR expires_at > ?)", [query.now]
    if query.filter is None:
        return conditions, [*arguments]
    fits, more = where(query.filter, "metadata")
    return f"{conditions} AND {fits}", [*arguments, *more]


def _by_words(db: Connection, row: BankRow, query: Query) -> list[FoundChunk]:
    words = list(dict.fromkeys(_WORD.findall(_searchable(query.text))))
    if not words:
        return []
    if len(words) > _MOST_WORDS:
        raise InvalidRequestError(
            f"query: has {len(words)} different words; allowed in a search by words: {_MOST_WORDS}", param="query"
        )
    asked = " OR ".join(f'"{word}"' for word in words)
    conditions, arguments = _conditions(query)
    table = f"words_{row.id}"
    found = db.execute(
        f"SELECT -{table}.rank, {_COLUMNS} FROM {table} JOIN chunks ON chunks.id = {table}.rowid "
        f"WHERE {table} MATCH ? AND {conditions} ORDER BY {table}.rank LIMIT ?",
        (asked, *arguments, query.max_chunks),
    )
    return [FoundChunk(_chunk(*fields), score) for score, *fields in found]


def _searchable(text: str) -> str:
    """FTS5 reads no further than a NUL character."""
    return text.replace("\0", " ")
