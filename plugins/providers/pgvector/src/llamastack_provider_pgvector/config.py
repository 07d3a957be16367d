"""The config of the pgvector provider."""

from __future__ import annotations

from typing import Annotated, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from llamastack_memory_kit import EmbeddingSettings


def _is_plain_address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("postgres", "postgresql"):
        raise ValueError("must be postgresql://[user@]host[:port]/database")
    secrets = {"password", "sslpassword"} & {key for key, _ in parse_qsl(parts.query, keep_blank_values=True)}
    if parts.password or secrets:
        raise ValueError("must not hold a password; use `password`, which is never shown")
    return url


class PgvectorConfig(EmbeddingSettings):
    """Where the database is, and how its indexes are made."""

    url: Annotated[
        str,
        AfterValidator(_is_plain_address),
        Field(
            description="The database, postgresql://[user@]host[:port]/database, with any parameters of libpq such as "
            "`?sslmode=verify-full`; for a Unix socket `postgresql://user@/database?host=/run/postgresql`."
        ),
    ]
    password: Annotated[SecretStr | None, Field(description="The password of the user in `url`.")] = None
    schema_name: Annotated[
        str,
        Field(
            pattern=r"^[a-z_][a-z0-9_]{0,62}$",
            description="Schema of the provider's tables; it is made if it is missing. Stacks with the same database "
            "and schema share their banks.",
        ),
    ] = "llamastack"
    connections: Annotated[
        int, Field(ge=1, le=1000, description="Most open connections of each process; further calls wait for one.")
    ] = 10
    timeout: Annotated[
        float,
        Field(
            gt=0,
            le=86400,
            description="Seconds that connecting, waiting for a free connection, and each statement may take.",
        ),
    ] = 30.0
    insert_timeout: Annotated[
        float,
        Field(gt=0, le=86400, description="Seconds that each statement of an insert may take; one makes the index."),
    ] = 600.0
    text_search: Annotated[
        str,
        Field(
            pattern=r"^[a-z_][a-z0-9_]{0,62}$",
            description="PostgreSQL's text search configuration for the words of new banks, such as `english`, which "
            "stems words. `simple` takes them as they are.",
        ),
    ] = "simple"
    index_from: Annotated[
        int,
        Field(ge=0, description="Chunks from which on a bank gets an HNSW index. Until then its search is exact."),
    ] = 1000
    hnsw_m: Annotated[int, Field(ge=2, le=100, description="Links of each vector in the index of new banks.")] = 16
    hnsw_ef_construction: Annotated[
        int, Field(ge=4, le=1000, description="Candidates when a vector is added; at least twice `hnsw_m`.")
    ] = 64
    hnsw_ef_search: Annotated[
        int, Field(ge=1, le=1000, description="Candidates of a query; more find more, and take longer.")
    ] = 100

    @model_validator(mode="after")
    def _has_enough_candidates(self) -> Self:
        if self.hnsw_ef_construction < 2 * self.hnsw_m:
            raise ValueError("hnsw_ef_construction must be at least twice hnsw_m")
        return self
