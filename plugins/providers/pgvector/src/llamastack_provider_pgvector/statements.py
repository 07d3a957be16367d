"""The SQL of banks: one row of the table `banks`, and a table of chunks for each."""

from __future__ import annotations

import hashlib
from typing import LiteralString

from psycopg import sql

from llamastack_memory_kit import Bank
from llamastack_provider_pgvector.texts import escaped

_MOST_INDEXED = 2000
_MOST_HALF_INDEXED = 4000
"""Dimensions that HNSW takes as `vector`, and as `halfvec`: https://github.com/pgvector/pgvector#hnsw"""
_MOST_INLINE = 1500
"""Numbers of a vector that always fits into a row with all else; outside of its row it is read much slower."""
_FOUND: LiteralString = "document, place, content, prefix, tokens, metadata, generation"

_BY_VECTOR: LiteralString = """
SELECT {found}, 1 - (embedding <=> %s) FROM {chunks}
WHERE (expires_at IS NULL OR expires_at > %s) AND {condition}
ORDER BY {distance} LIMIT %s
"""
_BY_WORDS: LiteralString = """
WITH query AS (
    SELECT to_tsquery((SELECT text_search FROM {banks} WHERE identifier = %s)::regconfig, %s) AS wanted
)
SELECT {found}, ts_rank_cd(words, wanted) AS score FROM {chunks}, query
WHERE words @@ wanted AND (expires_at IS NULL OR expires_at > %s) AND {condition}
ORDER BY score DESC, document, place LIMIT %s
"""
_TABLE: LiteralString = """
CREATE TABLE {chunks} (
    document text NOT NULL,
    place integer NOT NULL,
    content text NOT NULL,
    prefix text NOT NULL,
    tokens integer NOT NULL,
    metadata text NOT NULL,
    fields jsonb NOT NULL,
    generation bigint NOT NULL,
    expires_at double precision,
    words tsvector NOT NULL,
    embedding vector({dimension}) NOT NULL,
    PRIMARY KEY (document, place)
)
"""
_INSERT: LiteralString = """
INSERT INTO {chunks} VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, to_tsvector({text_search}::regconfig, %s), %s)
"""


class Statements:
    """The statements of one bank."""

    def __init__(self, schema: str, bank: Bank) -> None:
        self.dimension = bank.dimension
        name = "chunks_" + hashlib.sha256(escaped(bank.identifier).encode()).hexdigest()[:32]
        self.banks = sql.Identifier(schema, "banks")
        self.chunks = sql.Identifier(schema, name)
        self._names = {"banks": self.banks, "chunks": self.chunks, "found": sql.SQL(_FOUND)}

    @property
    def can_be_indexed(self) -> bool:
        """Whether HNSW takes vectors of this length, as halves if need be."""
        return self.dimension <= _MOST_HALF_INDEXED

    def make_table(self) -> list[sql.Composed]:
        """Make the table of chunks with all indexes but that of vectors."""
        made: list[sql.Composed] = [sql.SQL(_TABLE).format(chunks=self.chunks, dimension=sql.Literal(self.dimension))]
        if self.dimension <= _MOST_INLINE:
            made.append(self._of("ALTER TABLE {chunks} ALTER COLUMN embedding SET STORAGE PLAIN"))
        made.append(self._of("CREATE INDEX ON {chunks} USING gin (words)"))
        made.append(self._of("CREATE INDEX ON {chunks} USING gin (fields jsonb_path_ops)"))
        made.append(self._of("CREATE INDEX ON {chunks} (expires_at) WHERE expires_at IS NOT NULL"))
        return made

    def make_index(self, m: int, ef_construction: int) -> sql.Composed:
        """Make the index of vectors."""
        halves = "" if self.dimension <= _MOST_INDEXED else "half"
        return sql.SQL(
            "CREATE INDEX ON {chunks} USING hnsw (({vector}) {operators}) WITH (m = {m}, ef_construction = {ef})"
        ).format(
            chunks=self.chunks,
            vector=self._vector(sql.SQL("embedding")),
            operators=sql.SQL("halfvec_cosine_ops" if halves else "vector_cosine_ops"),
            m=sql.Literal(m),
            ef=sql.Literal(ef_construction),
        )

    def insert(self, text_search: str) -> sql.Composed:
        """Write one chunk."""
        return sql.SQL(_INSERT).format(chunks=self.chunks, text_search=sql.Literal(text_search))

    def by_vector(self, condition: sql.Composable, *, exact: bool) -> sql.Composed:
        """The nearest chunks. exact: look at all of them, without the index."""
        # The sum keeps PostgreSQL from using the index.
        distance = sql.SQL("(embedding <=> %s) + 0.0" if exact else "{} <=> {}").format(
            self._vector(sql.SQL("embedding")), self._vector(sql.SQL("%s"))
        )
        return sql.SQL(_BY_VECTOR).format(**self._names, condition=condition, distance=distance)

    def by_words(self, condition: sql.Composable) -> sql.Composed:
        """The chunks with the words."""
        return sql.SQL(_BY_WORDS).format(**self._names, condition=condition)

    def _vector(self, vector: sql.Composable) -> sql.Composable:
        if self.dimension <= _MOST_INDEXED or not self.can_be_indexed:
            return vector
        return sql.SQL("{}::halfvec({})").format(vector, sql.Literal(self.dimension))

    def _of(self, statement: LiteralString) -> sql.Composed:
        return sql.SQL(statement).format(**self._names)
