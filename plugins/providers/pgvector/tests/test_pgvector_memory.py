"""Banks in a real PostgreSQL: searches, replacing, two stacks at once, restart, faults."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import psycopg
import pytest

from llamastack.api.memory import MemoryBankDocument, QueryDocumentsResponse
from llamastack.api.memory_banks import VectorMemoryBank
from llamastack.provider import ConflictError, NotFoundError, ProviderTimeoutError
from llamastack_provider_pgvector.memory import PgvectorMemory

Start = Callable[..., Awaitable[PgvectorMemory]]
pytestmark = pytest.mark.anyio
BANK = VectorMemoryBank(identifier="notes", embedding_model="words", chunk_size_in_tokens=16)


def document(name: str, content: str, **metadata: Any) -> MemoryBankDocument:
    return MemoryBankDocument(document_id=name, content=content, metadata=metadata)


async def ids(memory: PgvectorMemory, text: str, **params: Any) -> list[str]:
    found = await memory.query_documents("notes", text, {"max_chunks": 50, **params})
    return [chunk.document_id for chunk in found.chunks]


async def rows(url: str, statement: str) -> list[Any]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        cursor = await connection.execute(statement)
        return await cursor.fetchall() if cursor.description else []


async def test_words_find_any_of_them_best_first(start: Start, place: dict[str, Any]) -> None:
    memory = await start(**place)
    await memory.register_memory_bank(BANK)
    texts = {"both": "red boats sail", "one": "a boat and boats", "none": "trains run"}
    await memory.insert_documents("notes", [document(name, text) for name, text in texts.items()])
    found = await memory.query_documents("notes", "red & boats | !(trams)", {"mode": "keyword", "max_chunks": 5})
    assert [chunk.document_id for chunk in found.chunks] == ["both", "one"]
    assert found.scored_by == "ts_rank_cd"
    assert found.scores[0] > found.scores[1] > 0
    assert await ids(memory, "!&|():*'", mode="keyword") == []
    assert (await ids(memory, "red boats", mode="hybrid"))[0] == "both"


async def test_a_configuration_stems_words_of_new_banks(start: Start, place: dict[str, Any]) -> None:
    memory = await start(**place, text_search="english")
    await memory.register_memory_bank(BANK)
    await memory.insert_documents("notes", [document("a", "boats are sailing")])
    assert await ids(memory, "boat", mode="keyword") == ["a"]
    assert await ids(await start(**place), "sails", mode="keyword") == ["a"]


async def test_odd_characters_come_back(start: Start, place: dict[str, Any]) -> None:
    memory = await start(**place)
    await memory.register_memory_bank(BANK)
    odd = {"a\0b": "x\0\x01", "f": 1e20, "n": 2**70}
    await memory.insert_documents("notes", [document("i\0d", "cats\0dogs \x01", **odd)])
    found = await memory.query_documents("notes", "dogs", {"mode": "keyword"})
    assert (found.chunks[0].document_id, found.chunks[0].content) == ("i\0d", "cats\0dogs \x01")
    metadata = found.chunks[0].metadata or {}
    assert {key: metadata[key] for key in odd} == odd
    assert await ids(memory, "dogs", filters={"type": "eq", "key": "a\0b", "value": "x\0\x01"}) == ["i\0d"]
    await memory.delete_documents("notes", ["i\0d"])
    assert await ids(memory, "dogs") == []


@pytest.mark.parametrize("index_from", [0, 1000])
async def test_a_rare_filter_finds_all_that_fit(start: Start, place: dict[str, Any], index_from: int) -> None:
    memory = await start(**place, index_from=index_from, hnsw_ef_search=10)
    await memory.register_memory_bank(BANK)
    await memory.insert_documents("notes", [document(f"d{n}", f"word{n} and", kind=n % 100) for n in range(600)])
    [(indexes,)] = await rows(
        place["url"],
        f"SELECT count(*) FROM pg_indexes WHERE schemaname = '{place['schema_name']}' AND indexdef LIKE '%hnsw%'",
    )
    assert indexes == (index_from == 0)
    rare: dict[str, Any] = {"type": "eq", "key": "kind", "value": 7}
    for mode in ("vector", "keyword", "hybrid"):
        assert {*await ids(memory, "and", filters=rare, mode=mode)} == {f"d{n}" for n in range(7, 600, 100)}
    assert len(await ids(memory, "and", max_chunks=600)) == 600


async def test_two_stacks_share_banks_and_documents_stay_whole(start: Start, place: dict[str, Any]) -> None:
    first, second = await start(**place), await start(**place)
    await asyncio.gather(first.register_memory_bank(BANK), second.register_memory_bank(BANK))
    with pytest.raises(ConflictError):
        await second.register_memory_bank(BANK.model_copy(update={"chunk_size_in_tokens": 99}))
    long = {1: "one " * 100, 2: "two " * 200}

    async def put(memory: PgvectorMemory, version: int) -> None:
        for _ in range(8):
            await memory.insert_documents("notes", [document("same", long[version])])

    async def look() -> None:
        for _ in range(40):
            found = await first.query_documents("notes", "one two", {"max_chunks": 50, "mode": "hybrid"})
            _assert_one_version(found)

    await first.insert_documents("notes", [document("same", long[1])])
    await asyncio.gather(put(first, 1), put(second, 2), look())
    await second.unregister_memory_bank(BANK)
    with pytest.raises(NotFoundError):
        await first.query_documents("notes", "one")
    await first.list_memory_banks()
    with pytest.raises(NotFoundError):
        await first.insert_documents("notes", [document("a", "b")])


def _assert_one_version(found: QueryDocumentsResponse) -> None:
    kinds = {str(chunk.content).split()[0] for chunk in found.chunks}
    assert len(kinds) == 1
    assert len(found.chunks) in (8, 9, 16, 17)


async def test_a_bank_dropped_by_another_process_is_not_found(start: Start, place: dict[str, Any]) -> None:
    first, second = await start(**place), await start(**place)
    for call in ("query", "insert", "delete"):
        await first.register_memory_bank(BANK)
        await first.insert_documents("notes", [document("a", "b")])
        await second.unregister_memory_bank(BANK)
        with pytest.raises(NotFoundError):
            if call == "query":
                await first.query_documents("notes", "b")
            elif call == "insert":
                await first.insert_documents("notes", [document("a", "b")])
            else:
                await first.delete_documents("notes", ["a"])
    await rows(place["url"], f"DROP SCHEMA {place['schema_name']} CASCADE")
    with pytest.raises(NotFoundError):
        await first.list_memory_banks()
    await first.register_memory_bank(BANK)
    assert await ids(first, "b") == []


@pytest.mark.parametrize("dimension", [1501, 2001, 4001])
async def test_long_vectors(start: Start, place: dict[str, Any], embedder: Any, dimension: int) -> None:
    embedder.dimension = dimension
    memory = await start(**place, index_from=0)
    await memory.register_memory_bank(BANK)
    await memory.insert_documents("notes", [document(f"d{n}", f"word{n}") for n in range(30)])
    for n in range(0, 30, 5):
        found = await memory.query_documents("notes", f"word{n}", {"max_chunks": 2})
        assert found.chunks[0].document_id == f"d{n}"
        assert found.scores[0] == pytest.approx(1)


async def test_a_cancelled_insert_stores_nothing_and_leaves_the_connections_clean(
    start: Start, place: dict[str, Any]
) -> None:
    memory = await start(**place, connections=1)
    await memory.register_memory_bank(BANK)
    await memory.insert_documents("notes", [document("a", "old")])
    many = [document("a", "new"), *(document(f"d{n}", f"word{n}") for n in range(1500))]
    cancelled = 0
    for seconds in (0.05, 0.1, 0.2, 0.4):
        with anyio.move_on_after(seconds) as scope:
            await memory.insert_documents("notes", many)
        if scope.cancelled_caught:
            cancelled += 1
            assert await ids(memory, "old") == ["a"]
    assert cancelled > 0
    busy = await rows(
        place["url"],
        "SELECT FROM pg_stat_activity WHERE application_name = 'llamastack' AND state LIKE 'idle in transaction%'",
    )
    assert busy == []


async def test_a_statement_that_takes_too_long_is_a_timeout(start: Start, place: dict[str, Any]) -> None:
    memory = await start(**place, timeout=0.5, insert_timeout=0.5)
    await memory.register_memory_bank(BANK)
    async with await psycopg.AsyncConnection.connect(place["url"]) as other:
        await other.execute(f"SELECT FROM {place['schema_name']}.banks FOR UPDATE")
        with pytest.raises(ProviderTimeoutError):
            await memory.insert_documents("notes", [document("a", "b")])
    await memory.insert_documents("notes", [document("a", "b")])


async def test_an_expired_document_is_removed(start: Start, place: dict[str, Any]) -> None:
    memory = await start(**place)
    await memory.register_memory_bank(BANK)
    await memory.insert_documents("notes", [document("brief", "b")], ttl_seconds=1)
    await anyio.sleep(1.1)
    assert await ids(memory, "b") == []
    await memory.insert_documents("notes", [document("other", "b")])
    [(table,)] = await rows(
        place["url"],
        f"SELECT tablename FROM pg_tables WHERE schemaname = '{place['schema_name']}' AND tablename LIKE 'chunks%'",
    )
    assert await rows(place["url"], f"SELECT document FROM {place['schema_name']}.{table}") == [("other",)]
