"""Faults of a real server: it stops, a process is killed, the user has no rights."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest

from llamastack.api.memory import MemoryBankDocument
from llamastack.api.memory_banks import VectorMemoryBank
from llamastack.provider import AuthenticationError, LlamaStackError, PermissionDeniedError, ProviderUnavailableError
from llamastack_provider_pgvector.memory import PgvectorMemory

Start = Callable[..., Awaitable[PgvectorMemory]]
pytestmark = pytest.mark.anyio
BANK = VectorMemoryBank(identifier="notes", embedding_model="words", chunk_size_in_tokens=16)
SECRET = "s3cret-of-the-database"


def stop(server: Any, how: signal.Signals) -> None:
    """Stop the server, and wait until it is gone. https://www.postgresql.org/docs/current/server-shutdown.html"""
    pid = server.get_pid()
    os.kill(pid, how)
    deadline = time.monotonic() + 20
    while (server.pgdata / "postmaster.pid").exists() or _runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def documents(names: list[str], content: str) -> list[MemoryBankDocument]:
    return [MemoryBankDocument(document_id=name, content=content) for name in names]


async def contents(memory: PgvectorMemory, text: str) -> set[tuple[str, str]]:
    found = await memory.query_documents("notes", text, {"max_chunks": 1000})
    return {(chunk.document_id, str(chunk.content)) for chunk in found.chunks}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
async def test_a_server_that_stops_in_an_insert_loses_nothing(start: Start, server: Any, how: signal.Signals) -> None:
    memory = await start(url=server.get_uri(), schema_name=f"stops_{how.name.lower()}")
    await memory.register_memory_bank(BANK)
    await memory.insert_documents("notes", documents(["a"], "old"))
    inserting = asyncio.ensure_future(
        memory.insert_documents("notes", documents(["a", *(f"d{n}" for n in range(4000))], "new"))
    )
    await _until_it_writes(server.get_uri(), inserting)
    await anyio.to_thread.run_sync(stop, server, how)
    with pytest.raises(ProviderUnavailableError):
        await inserting
    began = time.monotonic()
    for call in (memory.health(), memory.query_documents("notes", "old"), memory.list_memory_banks()):
        with pytest.raises(ProviderUnavailableError):
            await call
    assert time.monotonic() - began < 3
    await anyio.to_thread.run_sync(server.ensure_postgres_running)
    assert await contents(memory, "old") == {("a", "old")}
    await memory.health()
    await memory.insert_documents("notes", documents(["a"], "new"))
    assert await contents(memory, "new") == {("a", "new")}


async def _until_it_writes(url: str, inserting: asyncio.Future[None]) -> None:
    statement = (
        "SELECT 1 FROM pg_stat_activity WHERE application_name = 'llamastack' AND query LIKE '%INSERT INTO%chunks%'"
    )
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        while not await (await connection.execute(statement)).fetchone():
            assert not inserting.done()
            await anyio.sleep(0.01)


async def test_connections_that_the_server_closed_are_not_used(start: Start, server: Any) -> None:
    memory = await start(url=server.get_uri(), schema_name="closed")
    await memory.register_memory_bank(BANK)
    for how in (signal.SIGINT, signal.SIGQUIT):
        await asyncio.gather(*(memory.health() for _ in range(5)))
        await anyio.to_thread.run_sync(stop, server, how)
        await anyio.to_thread.run_sync(server.ensure_postgres_running)
        await memory.health()
        assert [bank.identifier for bank in await memory.list_memory_banks()] == ["notes"]


async def test_a_server_that_is_down_at_the_start_serves_later(start: Start, server: Any) -> None:
    await anyio.to_thread.run_sync(stop, server, signal.SIGINT)
    memory = await start(url=server.get_uri(), schema_name="later", password=SECRET)
    with pytest.raises(ProviderUnavailableError) as caught:
        await memory.list_memory_banks()
    assert SECRET not in str(caught.value)
    await anyio.to_thread.run_sync(server.ensure_postgres_running)
    await memory.register_memory_bank(BANK)


_CHILD = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from conftest import Words
from llamastack.api.memory import MemoryBankDocument
from llamastack.provider import Deps
from llamastack_provider_pgvector.config import PgvectorConfig
from llamastack_provider_pgvector.memory import PgvectorMemory

async def main():
    config = PgvectorConfig(url=sys.argv[2], schema_name="killed", index_from=100)
    memory = PgvectorMemory(config, Deps(provider_id="docs", apis={"inference": Words()}))
    await memory.initialize()
    version = int(sys.argv[3])
    while True:
        version += 1
        text = f"version {version} " * 40
        await memory.insert_documents(
            "notes", [MemoryBankDocument(document_id=f"d{n}", content=text) for n in range(20)]
        )
        print(version, flush=True)

asyncio.run(main())
"""


async def test_a_killed_process_leaves_inserts_whole(start: Start, server: Any) -> None:
    memory = await start(url=server.get_uri(), schema_name="killed", index_from=100)
    await memory.register_memory_bank(BANK)
    version = 0
    for round_ in range(4):
        command = [sys.executable, "-c", _CHILD, str(Path(__file__).parent), server.get_uri(), str(version)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said = [await anyio.to_thread.run_sync(process.stdout.readline) for _ in range(2)]
            await anyio.sleep(0.03 * round_)
            process.kill()
            said += process.stdout.read().splitlines()
        version = max(int(line) for line in said if line.strip())
        found = await contents(memory, "version")
        versions = {number for _, content in found for number in re.findall(r"\d+", content)}
        assert len(versions) == 1
        assert {name for name, _ in found} == {f"d{n}" for n in range(20)}
        assert version <= int(next(iter(versions))) <= version + 1
        version += 1
    await memory.insert_documents("notes", documents(["after"], "all"))


async def test_missing_rights_are_said(start: Start, server: Any) -> None:
    url = server.get_uri()
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("CREATE ROLE guest LOGIN")
        await connection.execute("CREATE DATABASE bare")
    guest = url.replace("postgres:@", "guest@")
    with pytest.raises(PermissionDeniedError, match="CREATE EXTENSION vector"):
        await (await start(url=guest.replace("/postgres?", "/bare?"))).health()
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    with pytest.raises(PermissionDeniedError, match="permission denied"):
        await (await start(url=guest)).health()


async def test_passwords_are_needed_and_never_shown(start: Start, server: Any, caplog: Any) -> None:
    url, rules = server.get_uri(), server.pgdata / "pg_hba.conf"
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(f"CREATE ROLE keeper LOGIN SUPERUSER PASSWORD '{SECRET}'")
        rules.write_text("local all keeper scram-sha-256\n" + rules.read_text())
        await connection.execute("SELECT pg_reload_conf()")
    await anyio.sleep(0.2)
    keeper = url.replace("postgres:@", "keeper@")
    await (await start(url=keeper, password=SECRET)).health()
    for wrong in ("not-" + SECRET, None):
        with pytest.raises(AuthenticationError) as caught:
            await (await start(url=keeper, password=wrong)).health()
        assert SECRET not in str(caught.value) + caplog.text
    with pytest.raises(ValueError, match="password") as refused:
        await start(url=f"postgresql://keeper:{SECRET}@127.0.0.1/postgres")
    assert SECRET not in str(refused.value)


async def test_a_database_that_only_reads_is_said(start: Start, server: Any) -> None:
    config = {"url": server.get_uri(), "schema_name": "reads"}
    memory = await start(**config)
    await memory.register_memory_bank(BANK)
    await memory.insert_documents("notes", documents(["a"], "kept"))
    reader = await start(**{**config, "url": config["url"] + "&options=-c%20default_transaction_read_only%3Don"})
    assert await contents(reader, "kept") == {("a", "kept")}
    with pytest.raises(LlamaStackError, match="read-only"):
        await reader.insert_documents("notes", documents(["a"], "new"))
    assert await contents(memory, "kept") == {("a", "kept")}
