"""The connections to the database, and what each needs before it serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, LiteralString, Self, TypeVar
from urllib.parse import urlsplit

import anyio
import psycopg
from pgvector.psycopg import register_vector_async
from psycopg import AsyncConnection, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import UndefinedTable
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from llamastack.provider import LlamaStackError, NotSupportedError, PermissionDeniedError, ProviderUnavailableError
from llamastack.provider.redaction import Redactor
from llamastack_provider_pgvector.config import PgvectorConfig
from llamastack_provider_pgvector.errors import translated

Connection = AsyncConnection[TupleRow]
Result = TypeVar("Result")

_LEAST_VERSION = (0, 8)
"""Of pgvector: the first with iterative scans, without which a filter makes an index find too few."""
_EXTENSION: LiteralString = """
SELECT extversion, quote_ident(nspname), current_setting('server_encoding')
FROM pg_database LEFT JOIN (pg_extension JOIN pg_namespace n ON n.oid = extnamespace) ON extname = 'vector'
WHERE datname = current_database()
"""
# Two processes must not make the tables at once. The number is arbitrary.
_LOCK: LiteralString = "SELECT pg_advisory_xact_lock(716016)"
_BANKS: LiteralString = """
CREATE TABLE IF NOT EXISTS {schema}.banks (
    identifier text PRIMARY KEY,
    definition text NOT NULL,
    dimension integer NOT NULL,
    text_search text NOT NULL,
    indexed boolean NOT NULL DEFAULT false,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""


class Database:
    """A pool of connections that are ready for vectors. It opens them when they are needed."""

    def __init__(self, config: PgvectorConfig, provider_id: str) -> None:
        self._config = config
        self._provider_id = provider_id
        parts = urlsplit(config.url)
        self.where = f"PostgreSQL at {parts.netloc.rpartition('@')[2] or 'a socket'}{parts.path}"
        """The database, without the user, for messages."""
        self._redact = Redactor(config)
        self._pool: AsyncConnectionPool[Connection] | None = None
        self._prepared = False
        self._preparing = anyio.Lock()
        self._failures: set[asyncio.Future[BaseException]] = set()

    async def open(self) -> None:
        """Make the pool. No connection is made yet."""
        if self._pool is not None:
            return
        password = self._config.password
        milliseconds = int(self._config.timeout * 1000)
        own = conninfo_to_dict(self._config.url).get("options") or ""
        self._pool = AsyncConnectionPool(
            self._config.url,
            connection_class=self._connection_class(),
            kwargs={
                "autocommit": True,
                "connect_timeout": max(2, int(self._config.timeout)),
                "application_name": "llamastack",
                "options": f"-c statement_timeout={milliseconds} -c plan_cache_mode=force_custom_plan {own}",
                **({} if password is None else {"password": password.get_secret_value()}),
            },
            min_size=0,
            max_size=self._config.connections,
            timeout=self._config.timeout,
            reconnect_timeout=1,
            check=_check,
            open=False,
        )
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Close every connection."""
        pool, self._pool = self._pool, None
        self._prepared = False
        if pool is not None:
            await pool.close()

    async def run(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Do work with a connection; one transaction is the work's own business.

        Cancelled calls cancel the statement on the server, and wait until the connection is clean.

        Raises NotFoundError if a table is gone, and the error of the family for any other failure.
        """
        return await _to_the_end(self._run(work))

    async def _run(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        try:
            async with self._connection() as connection:
                if not self._prepared:
                    await self._prepare(connection)
                return await work(connection)
        except psycopg.Error as error:
            if isinstance(error, UndefinedTable):
                self._prepared = False  # somebody may have removed the whole schema
            raise self._own(translated(error, self.where)) from None

    def _own(self, error: LlamaStackError) -> LlamaStackError:
        return error.amend(message=self._redact(error.message), provider_id=self._provider_id)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """A connection of the pool. A failure to connect is raised at once, not when the pool stops trying."""
        if self._pool is None:
            raise ProviderUnavailableError("the provider is not started", provider_id=self._provider_id)
        failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        got = asyncio.ensure_future(self._pool.getconn())
        self._failures.add(failed)
        try:
            waited: set[asyncio.Future[Any]] = {got, failed}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._failures.discard(failed)
            if not got.done():
                got.cancel()
                await asyncio.wait({got})
        if got.cancelled():
            raise failed.result()
        connection, pool = got.result(), self._pool
        try:
            async with connection:  # commits, or rolls back; it is not closed, as it belongs to a pool
                yield connection
        finally:
            await pool.putconn(connection)

    def _connection_class(self) -> type[Connection]:
        database = self

        class Ready(AsyncConnection[TupleRow]):
            """A connection whose failure is seen by those who wait for one."""

            @classmethod
            async def connect(cls, *arguments: Any, **options: Any) -> Self:
                try:
                    made = await super().connect(*arguments, **options)
                    try:
                        await database._make_ready(made)
                    except BaseException:
                        await made.close()
                        raise
                except Exception as error:
                    for waiting in database._failures:
                        if not waiting.done():
                            waiting.set_result(error)
                    raise
                return made

        return Ready

    async def _make_ready(self, connection: Connection) -> None:
        """Look for the extension, and set what each search needs."""
        version, schema, encoding = await self._extension(connection)
        if version is None:
            await self._make_extension(connection)
            version, schema, encoding = await self._extension(connection)
        if encoding != "UTF8":
            raise self._own(NotSupportedError(f"{self.where} has the encoding {encoding}; it must be UTF8"))
        if tuple(int(part) for part in version.split(".")[:2]) < _LEAST_VERSION:
            raise self._own(
                NotSupportedError(
                    f"{self.where} has pgvector {version}, which is older than 0.8; install a newer one and run ALTER "
                    "EXTENSION vector UPDATE"
                )
            )
        await connection.execute(
            "SELECT set_config('search_path', %s, false), set_config('hnsw.ef_search', %s, false),"
            " set_config('hnsw.iterative_scan', 'strict_order', false)",
            [f"{schema}, pg_catalog", str(self._config.hnsw_ef_search)],
        )
        await register_vector_async(connection)

    async def _extension(self, connection: Connection) -> TupleRow:
        row = await (await connection.execute(_EXTENSION)).fetchone()
        assert row is not None  # the database that answers is there
        return row

    async def _make_extension(self, connection: Connection) -> None:
        try:
            async with connection.transaction():
                await connection.execute(_LOCK)
                await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except psycopg.Error as error:
            if isinstance(error, psycopg.errors.InsufficientPrivilege):
                kind: type[LlamaStackError] = PermissionDeniedError
                advice = "let a superuser run CREATE EXTENSION vector in this database"
            elif isinstance(error, psycopg.errors.UndefinedFile | psycopg.errors.FeatureNotSupported):
                kind, advice = NotSupportedError, "install pgvector 0.8 or later on the server"
            else:
                raise
            text = (
                f"{self.where} has no extension 'vector', and it cannot be made: {error.diag.message_primary}; {advice}"
            )
            raise self._own(kind(text)) from None

    async def _prepare(self, connection: Connection) -> None:
        """Make the schema and the table of banks, if they are missing."""
        schema = self._config.schema_name
        async with self._preparing:
            async with connection.transaction():
                await connection.execute(_LOCK)
                known = await connection.execute("SELECT to_regclass(%s)", [f"{schema}.banks"])
                if (await known.fetchone() or (None,))[0] is None:
                    names = {"schema": sql.Identifier(schema)}
                    there = await connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", [schema])
                    if await there.fetchone() is None:
                        await connection.execute(sql.SQL("CREATE SCHEMA {schema}").format(**names))
                    await connection.execute(sql.SQL(_BANKS).format(**names))
            self._prepared = True


async def _check(connection: Connection) -> None:
    """Whether the server has closed an idle connection; nothing is sent. Raises OperationalError if it has."""
    for _ in range(2):  # the server's last words come first, then the end
        connection.pgconn.consume_input()
    if connection.closed:
        raise psycopg.OperationalError("the server closed the connection")


async def _to_the_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Await work; if this is cancelled, cancel it once, and wait until it has cleaned up.

    anyio cancels every further await of a cancelled scope, also those that roll back.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            raise asyncio.CancelledError from error
        raise
