"""Banks, insert, query and delete, in every kind of place, with the real embedding model."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import anyio
import pytest
from qdrant_client import models

from llamastack.api.common import ImageMedia
from llamastack.api.memory import MemoryBankDocument
from llamastack.api.memory_banks import GraphMemoryBank, KeyValueMemoryBank, KeywordMemoryBank, VectorMemoryBank
from llamastack.provider import (
    BackendError,
    ConflictError,
    InvalidRequestError,
    ObjectNotFoundError,
    ProviderUnavailableError,
    UnsupportedMemoryBankError,
)
from llamastack_provider_qdrant.memory import QdrantMemory
from llamastack_provider_qdrant.points import collection_name

pytestmark = pytest.mark.anyio

MODEL = "all-MiniLM-L6-v2"
TEXTS = {
    "cats": "Cats sleep most of the day and hunt mice at dusk.",
    "money": "The central bank raised interest rates to slow inflation.",
    "python": "Use pip to install a package into a virtual environment.",
}


def bank(identifier: str = "handbook", **changes: Any) -> VectorMemoryBank:
    fields: dict[str, Any] = {"embedding_model": MODEL, "chunk_size_in_tokens": 64, "overlap_size_in_tokens": 8}
    return VectorMemoryBank(identifier=identifier, **{**fields, **changes})


def documents(**texts: str) -> list[MemoryBankDocument]:
    return [
        MemoryBankDocument(document_id=name, content=text, metadata={"from": name, "page": 1})
        for name, text in texts.items()
    ]


async def found(
    memory: QdrantMemory, query: str = "anything", *, count: int = 1000, bank_id: str = "handbook"
) -> list[str]:
    """The ids of the documents of the chunks that are found, best first."""
    reply = await memory.query_documents(bank_id, query, {"max_chunks": count})
    return [chunk.document_id for chunk in reply.chunks]


async def test_round_trip_by_meaning(memory: QdrantMemory) -> None:
    await memory.register_memory_bank(bank())
    await memory.insert_documents("handbook", documents(**TEXTS))
    for query, expected in [
        ("What do kittens do all day?", "cats"),
        ("monetary policy", "money"),
        ("How do I add a library?", "python"),
    ]:
        reply = await memory.query_documents("handbook", query)
        assert reply.chunks[0].document_id == expected
        assert reply.scores == sorted(reply.scores, reverse=True)
        assert len(reply.chunks) == len(reply.scores) == 3
    chunk = (await memory.query_documents("handbook", TEXTS["cats"])).chunks[0]
    assert chunk.content == TEXTS["cats"]
    assert chunk.token_count == 12
    assert chunk.metadata == {"from": "cats", "page": 1}


async def test_scores_are_cosine_similarities(memory: QdrantMemory, model: Any) -> None:
    await memory.register_memory_bank(bank())
    await memory.insert_documents("handbook", documents(**TEXTS))
    reply = await memory.query_documents("handbook", "mice", {"max_chunks": 3})
    query, *vectors = (await model.embeddings(MODEL, ["mice", *TEXTS.values()])).embeddings
    expected = sorted((sum(a * b for a, b in zip(query, v, strict=True)) for v in vectors), reverse=True)
    assert reply.scores == pytest.approx(expected, abs=1e-4)
    best, second, _ = reply.scores
    reply = await memory.query_documents("handbook", "mice", {"score_threshold": (best + second) / 2})
    assert reply.scores == [best]


async def test_a_known_document_is_replaced_with_all_its_chunks(memory: QdrantMemory) -> None:
    await memory.register_memory_bank(bank())
    await memory.insert_documents("handbook", documents(long="word " * 1000, other="something else"))
    assert len(await found(memory)) > 15
    await memory.insert_documents("handbook", documents(long="now it is short"))
    assert sorted(await found(memory)) == ["long", "other"]
    await memory.insert_documents("handbook", documents(long=""))
    assert await found(memory) == ["other"]


async def test_long_documents_are_embedded_and_written_in_batches(
    start: Any, place: dict[str, Any], embedder: Any
) -> None:
    memory = await start(embedding_batch_size=50, **place)
    await memory.register_memory_bank(bank(chunk_size_in_tokens=2, overlap_size_in_tokens=0))
    embedder.asked.clear()
    await memory.insert_documents("handbook", documents(long=" ".join(f"w{i}" for i in range(600))))
    assert embedder.asked == [50] * 6
    reply = await memory.query_documents("handbook", "w0 w1", {"max_chunks": 1000})
    assert len(reply.chunks) == 300
    assert reply.chunks[0].content == "w0 w1"
    assert {chunk.token_count for chunk in reply.chunks} == {2}


async def test_overlap_is_a_quarter_where_the_bank_does_not_say(memory: QdrantMemory) -> None:
    await memory.register_memory_bank(bank(chunk_size_in_tokens=8, overlap_size_in_tokens=None))
    await memory.insert_documents("handbook", documents(a=" ".join(f"w{i}" for i in range(14))))
    reply = await memory.query_documents("handbook", "w")
    words = sorted((chunk.content.split() for chunk in reply.chunks), key=len)
    assert sorted(words, key=lambda w: int(w[0][1:])) == [[f"w{i}" for i in range(8)], [f"w{i}" for i in range(6, 14)]]


async def test_delete(memory: QdrantMemory) -> None:
    await memory.register_memory_bank(bank())
    await memory.insert_documents("handbook", documents(**TEXTS))
    await memory.delete_documents("handbook", ["cats", "never there"])
    assert sorted(await found(memory)) == ["money", "python"]
    await memory.delete_documents("handbook", ["cats", "money", "python"])
    assert await found(memory) == []


async def test_expired_documents_are_not_found_and_go(
    memory: QdrantMemory, monkeypatch: pytest.MonkeyPatch, embedder: Any
) -> None:
    now = 1_000_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    await memory.register_memory_bank(bank())
    await memory.insert_documents("handbook", documents(short="gone soon"), ttl_seconds=10)
    await memory.insert_documents("handbook", documents(forever="here to stay"))
    await memory.insert_documents("handbook", documents(far="very far"), ttl_seconds=10**400)
    now += 9.9
    assert sorted(await found(memory)) == ["far", "forever", "short"]
    now += 0.1
    assert sorted(await found(memory)) == ["far", "forever"]
    assert await _points(memory) == 3
    await memory.insert_documents("handbook", documents(other="something"))
    assert await _points(memory) == 3


async def _points(memory: QdrantMemory) -> int:
    name = collection_name("llamastack_", "handbook")
    return int((await memory._backend.call("get_collection", collection_name=name)).points_count)


async def test_a_failed_insert_leaves_everything_as_it_was(
    memory: QdrantMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    await memory.register_memory_bank(bank(chunk_size_in_tokens=1, overlap_size_in_tokens=0))
    await memory.insert_documents("handbook", documents(kept="old"))
    call = memory._backend.call
    upserts = 0

    async def failing(method: str, **arguments: Any) -> Any:
        nonlocal upserts
        upserts += method == "upsert"
        if upserts == 2:
            upserts = 0
            raise BackendError("the disk is full")
        return await call(method, **arguments)

    monkeypatch.setattr(memory._backend, "call", failing)
    with pytest.raises(BackendError):
        await memory.insert_documents("handbook", documents(new="x", kept=" ".join(["word"] * 300)))
    assert await found(memory) == ["kept"]
    assert (await memory.query_documents("handbook", "old")).chunks[0].content == "old"
    assert await _points(memory) == 1


async def test_a_replaced_document_is_found_at_every_moment(memory: QdrantMemory) -> None:
    await memory.register_memory_bank(bank())
    await memory.insert_documents("handbook", documents(a="version 0"))
    seen: set[str] = set()
    done = anyio.Event()

    async def watch() -> None:
        while not done.is_set():
            reply = await memory.query_documents("handbook", "version", {"max_chunks": 10})
            contents = {str(chunk.content) for chunk in reply.chunks}
            assert contents
            seen.update(contents)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        for version in range(1, 20):
            await memory.insert_documents("handbook", documents(a=f"version {version}"))
        done.set()
    assert len(seen) > 2
    assert await found(memory) == ["a"]


async def test_concurrent_inserts_of_one_document_leave_one(memory: QdrantMemory) -> None:
    await memory.register_memory_bank(bank(chunk_size_in_tokens=2, overlap_size_in_tokens=0))
    async with anyio.create_task_group() as tasks:
        for i in range(8):
            text = " ".join(f"v{i}" for _ in range(20))
            tasks.start_soon(memory.insert_documents, "handbook", documents(a=text))
    reply = await memory.query_documents("handbook", "v", {"max_chunks": 1000})
    assert len(reply.chunks) == 10
    assert len({chunk.content for chunk in reply.chunks}) == 1


async def test_banks_are_listed_and_registering_is_idempotent(memory: QdrantMemory) -> None:
    assert await memory.list_memory_banks() == []
    await memory.register_memory_bank(bank())
    await memory.register_memory_bank(bank(provider_id="docs"))
    others = ["Handbook", "hand/book: *?", "日本語", "x" * 512]
    for identifier in others:
        await memory.register_memory_bank(bank(identifier))
        await memory.insert_documents(identifier, documents(only=identifier[:50]))
    listed = await memory.list_memory_banks()
    assert sorted(b.identifier for b in listed) == sorted(["handbook", *others])
    assert bank() in listed
    assert await found(memory) == []
    for identifier in others:
        assert await found(memory, bank_id=identifier) == ["only"]


@pytest.mark.parametrize(
    "changes", [{"chunk_size_in_tokens": 65}, {"overlap_size_in_tokens": 9}, {"embedding_model": "other"}]
)
async def test_another_definition_is_a_conflict(memory: QdrantMemory, changes: dict[str, Any]) -> None:
    await memory.register_memory_bank(bank())
    await memory.insert_documents("handbook", documents(a="text"))
    with pytest.raises(ConflictError, match="'handbook' already exists") as caught:
        await memory.register_memory_bank(bank(**changes))
    assert caught.value.provider_id == "docs"
    assert await found(memory) == ["a"]


async def test_an_unknown_embedding_model_registers_nothing(memory: QdrantMemory) -> None:
    with pytest.raises(ObjectNotFoundError, match="no model 'nope'") as raised:
        await memory.register_memory_bank(bank(embedding_model="nope"))
    assert raised.value.param == "memory_bank.embedding_model"
    assert await memory.list_memory_banks() == []
    await memory.register_memory_bank(bank())


async def test_a_model_of_another_dimension_is_a_conflict(memory: QdrantMemory, embedder: Any) -> None:
    await memory.register_memory_bank(bank())
    embedder.dimension = 100
    with pytest.raises(
        ConflictError, match="makes vectors of 100 numbers, but memory bank 'handbook' was made for 384"
    ):
        await memory.insert_documents("handbook", documents(a="text"))


@pytest.mark.parametrize("kind", [KeyValueMemoryBank, KeywordMemoryBank, GraphMemoryBank])
async def test_other_kinds_of_banks_are_refused(memory: QdrantMemory, kind: Any) -> None:
    with pytest.raises(UnsupportedMemoryBankError, match=r"banks of type 'vector', not '(keyvalue|keyword|graph)'"):
        await memory.register_memory_bank(kind(identifier="x"))


async def test_unregister_deletes_the_documents(memory: QdrantMemory) -> None:
    await memory.register_memory_bank(bank())
    await memory.insert_documents("handbook", documents(**TEXTS))
    await memory.unregister_memory_bank(bank(chunk_size_in_tokens=100))
    assert len(await found(memory)) == 3
    await memory.unregister_memory_bank(bank())
    await memory.unregister_memory_bank(bank())
    assert await memory.list_memory_banks() == []
    with pytest.raises(ObjectNotFoundError):
        await memory.query_documents("handbook", "cats")
    await memory.register_memory_bank(bank(chunk_size_in_tokens=100))
    assert await found(memory) == []


async def test_a_bank_that_vanished_underneath_is_not_found(memory: QdrantMemory) -> None:
    await memory.register_memory_bank(bank())
    await memory._backend.call("delete_collection", collection_name=collection_name("llamastack_", "handbook"))
    for _ in range(2):
        with pytest.raises(ObjectNotFoundError):
            await memory.query_documents("handbook", "cats")


async def test_an_unknown_bank_is_not_found(memory: QdrantMemory) -> None:
    await memory.register_memory_bank(bank())
    await memory.list_memory_banks()
    for call in (
        memory.insert_documents("nope", documents(a="text")),
        memory.query_documents("nope", "text"),
        memory.delete_documents("nope", ["a"]),
    ):
        with pytest.raises(ObjectNotFoundError, match=r"no memory bank 'nope' is served\. Served: handbook") as caught:
            await call
        assert caught.value.param == "bank_id"


@pytest.mark.parametrize(
    ("params", "param"),
    [
        *(({"max_chunks": value}, "params.max_chunks") for value in (0, -1, "three", "3", 10**9, 2.5, True, None)),
        *(({"score_threshold": value}, "params.score_threshold") for value in ("high", float("nan"), float("inf"))),
        ({"max_chunk": 3}, "params.max_chunk"),
    ],
)
async def test_bad_params_are_refused(start: Any, params: dict[str, Any], param: str) -> None:
    memory = await start(location=":memory:")
    await memory.register_memory_bank(bank())
    with pytest.raises(InvalidRequestError, match=f"^{param}: ") as caught:
        await memory.query_documents("handbook", "text", params)
    assert caught.value.param == param
    assert caught.value.provider_id == "docs"


async def test_images_cannot_be_searched_by(memory: QdrantMemory) -> None:
    await memory.register_memory_bank(bank())
    for query in (ImageMedia(image="http://x/y.png"), ["text", ImageMedia(image="http://x/y.png")]):
        with pytest.raises(InvalidRequestError, match="images"):
            await memory.query_documents("handbook", query)


async def test_a_restart_keeps_banks_and_documents(start: Any, tmp_path: Path) -> None:
    before = await start(path=tmp_path / "q")
    await before.register_memory_bank(bank())
    await before.register_memory_bank(bank("other", chunk_size_in_tokens=10))
    await before.insert_documents("handbook", documents(**TEXTS))
    await before.shutdown()
    await before.shutdown()
    after = await start(path=tmp_path / "q")
    assert await after.list_memory_banks() == [bank(), bank("other", chunk_size_in_tokens=10)]
    assert (await found(after, "kittens"))[0] == "cats"
    await after.register_memory_bank(bank())
    await after.insert_documents("handbook", documents(cats="Dogs bark."))
    assert len(await found(after)) == 3


async def test_what_an_insert_has_stored_is_on_the_disk(start: Any, tmp_path: Path) -> None:
    memory = await start(path=tmp_path / "q")
    await memory.register_memory_bank(bank())
    await memory.insert_documents("handbook", documents(**TEXTS))
    await memory.delete_documents("handbook", ["money"])
    left = tmp_path / "left"  # as a machine without power leaves it: without the log that is not yet written back
    shutil.copytree(tmp_path / "q", left, ignore=shutil.ignore_patterns("*-wal", "*-shm", ".lock"))
    after = await start(path=left)
    assert await after.list_memory_banks() == [bank()]
    assert set(await found(after)) == set(TEXTS) - {"money"}


async def test_foreign_collections_are_left_alone(memory: QdrantMemory) -> None:
    vectors = models.VectorParams(size=2, distance=models.Distance.DOT)
    for name in ("llamastack_other", "someone_elses", collection_name("llamastack_", "handbook")):
        await memory._backend.call("create_collection", collection_name=name, vectors_config=vectors)
    assert await memory.list_memory_banks() == []
    with pytest.raises(ConflictError, match="does not belong to this provider"):
        await memory.register_memory_bank(bank())


async def test_after_shutdown_it_is_unavailable(memory: QdrantMemory) -> None:
    await memory.health()
    await memory.register_memory_bank(bank())
    await memory.shutdown()
    await memory.shutdown()
    for call in (memory.health(), memory.insert_documents("handbook", documents(a="text")), memory.list_memory_banks()):
        with pytest.raises(ProviderUnavailableError):
            await call


async def test_the_event_loop_goes_on(start: Any, tmp_path: Path) -> None:
    memory = await start(path=tmp_path / "q")
    await memory.register_memory_bank(bank(chunk_size_in_tokens=4, overlap_size_in_tokens=0))
    gaps: list[float] = []

    async def tick() -> None:
        while True:
            before = anyio.current_time()
            await anyio.sleep(0.005)
            gaps.append(anyio.current_time() - before)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        before = anyio.current_time()
        await memory.insert_documents("handbook", documents(long="word " * 1000))
        await memory.query_documents("handbook", "word", {"max_chunks": 1000})
        took = anyio.current_time() - before
        tasks.cancel_scope.cancel()
    assert max(gaps) < took / 2
    assert len(gaps) > 20


async def test_an_embedded_qdrant_is_for_its_owner_alone(start: Any, tmp_path: Path) -> None:
    folder = tmp_path / "q"

    def open_to_others() -> list[str]:
        return [str(path) for path in (folder, *folder.rglob("*")) if path.stat().st_mode & 0o077]

    umask = os.umask(0o000)
    try:
        memory = await start(path=folder)
        assert open_to_others() == []
        await memory.register_memory_bank(bank())
        await memory.insert_documents("handbook", documents(**TEXTS))
        assert open_to_others() == []
        await memory.shutdown()
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o777 if path.is_dir() else 0o666)
        await start(path=folder)
        assert open_to_others() == []
    finally:
        os.umask(umask)
