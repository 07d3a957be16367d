"""The memory provider in its file: types of banks, restarts, other processes, snapshots, kills and full disks."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from llamastack.api.common import CompletionMessage
from llamastack.api.inference import ChatCompletionResponse, EmbeddingsResponse
from llamastack.api.memory import MemoryBankDocument
from llamastack.api.memory_banks import GraphMemoryBank, KeyValueMemoryBank, VectorMemoryBank
from llamastack.provider import BackendError, ConflictError, Deps, InvalidRequestError, ProviderUnavailableError
from llamastack_provider_meta_reference.memory.config import MemoryConfig
from llamastack_provider_meta_reference.memory.provider import MetaReferenceMemory, get_provider_impl

Start = Callable[..., Awaitable[MetaReferenceMemory]]
_NOTES = VectorMemoryBank(identifier="notes", embedding_model="made", chunk_size_in_tokens=50)
_FACTS = GraphMemoryBank(identifier="facts")
_HALF = 20


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Model:
    """Embeds a text by its letters, and answers a chat with `says`."""

    def __init__(self) -> None:
        self.dimension = 26
        self.says = ""
        self.asked: dict[str, Any] = {}

    async def embeddings(self, model: str, contents: list[str]) -> EmbeddingsResponse:
        vectors = [[float(text.lower().count(chr(97 + i))) for i in range(self.dimension)] for text in contents]
        return EmbeddingsResponse(embeddings=vectors)

    async def chat_completion(self, **asked: Any) -> ChatCompletionResponse:
        self.asked = asked
        message = CompletionMessage(content=self.says, stop_reason="end_of_turn")
        return ChatCompletionResponse(completion_message=message)


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
async def start(tmp_path: Path, model: Model) -> AsyncIterator[Start]:
    started: list[MetaReferenceMemory] = []

    async def make(**config: Any) -> MetaReferenceMemory:
        settings = MemoryConfig.model_validate({"path": tmp_path / "memory.sqlite", **config})
        memory = await get_provider_impl(settings, Deps(provider_id="docs", apis={"inference": model}))
        started.append(memory)
        await memory.initialize()
        return memory

    yield make
    for each in started:
        await each.shutdown()


def _document(name: str, content: str, **metadata: Any) -> MemoryBankDocument:
    return MemoryBankDocument(document_id=name, content=content, metadata=metadata)


def _graph(*relations: tuple[str, str, str]) -> str:
    return json.dumps({"relations": [{"from": a, "relation": r, "to": b} for a, r, b in relations]})


async def _found(memory: MetaReferenceMemory, bank: str, query: str, **params: Any) -> list[tuple[str, float]]:
    reply = await memory.query_documents(bank, query, params)
    return [(chunk.document_id, score) for chunk, score in zip(reply.chunks, reply.scores, strict=True)]


@pytest.mark.anyio
async def test_keys_find_their_documents_whole(start: Start) -> None:
    memory = await start()
    await memory.register_memory_bank(KeyValueMemoryBank(identifier="keys"))
    text = " ".join(f"word{i}" for i in range(1000))
    await memory.insert_documents("keys", [_document("a b", text, year=1), _document("A b", "other")])
    reply = await memory.query_documents("keys", "a b")
    assert [chunk.content for chunk in reply.chunks] == [text]
    assert (reply.scores, reply.scored_by) == ([1.0], "key")
    assert await _found(memory, "keys", "a") == []
    assert await _found(memory, "keys", "a b", filters={"type": "eq", "key": "year", "value": 2}) == []
    await memory.delete_documents("keys", ["a b"])
    assert await _found(memory, "keys", "a b") == []


@pytest.mark.anyio
async def test_graphs_find_entities_and_their_neighbours_the_nearest_first(start: Start) -> None:
    memory = await start(graph_depth=2)
    await memory.register_memory_bank(_FACTS)
    documents = [
        _document("far", _graph(("Charles", "knew", "Michael")), year=3),
        _document("two", _graph(("Ada Lovelace", "wrote to", "Charles")), year=1),
        _document("type", '{"entities": [{"name": "Michael", "type": "person"}]}'),
        _document("else", _graph(("Rome", "is in", "Italy"))),
    ]
    await memory.insert_documents("facts", documents)
    reply = await memory.query_documents("facts", "Whom did ADA  LOVELACE, write to?", {"max_chunks": 9})
    assert reply.scored_by == "graph"
    found = [(chunk.document_id, score) for chunk, score in zip(reply.chunks, reply.scores, strict=True)]
    assert found == [("two", 1.0), ("far", 0.5), ("type", 1 / 3)]
    only = {"type": "eq", "key": "year", "value": 1}
    assert await _found(memory, "facts", "Ada Lovelace", filters=only) == [("two", 1.0)]
    assert await _found(memory, "facts", "Ada") == []
    await memory.insert_documents("facts", [_document("two", _graph(("Paris", "is in", "France")))])
    assert await _found(memory, "facts", "Ada Lovelace") == []


@pytest.mark.anyio
@pytest.mark.parametrize("text", ["Ada wrote.", "[1]", '{"other": 1}', '{"relations": [{"from": "A"}]}', "[" * 9999])
async def test_a_text_that_is_no_graph_is_refused_without_a_model(start: Start, text: str) -> None:
    memory = await start()
    await memory.register_memory_bank(_FACTS)
    with pytest.raises(InvalidRequestError, match=r"documents\[1\]\.content: document 'b' .*graph_model") as refused:
        await memory.insert_documents("facts", [_document("a", _graph(("Ada", "is", "B"))), _document("b", text)])
    assert refused.value.param == "documents[1].content"
    assert await _found(memory, "facts", "Ada") == []


@pytest.mark.anyio
async def test_a_model_reads_entities_and_relations_out_of_texts(start: Start, model: Model) -> None:
    memory = await start(graph_model="reader")
    await memory.register_memory_bank(_FACTS)
    model.says = _graph(("Ada", "wrote to", "Charles"))
    await memory.insert_documents("facts", [_document("letter", "Ada wrote to Charles.")])
    assert model.asked["model"] == "reader"
    assert {"entities", "relations"} <= model.asked["response_format"].json_schema["properties"].keys()
    assert await _found(memory, "facts", "Who is Charles?") == [("letter", 1.0)]
    model.says = "I cannot."
    with pytest.raises(BackendError, match="model 'reader' answered no entities"):
        await memory.insert_documents("facts", [_document("other", "Rome is in Italy.")])


@pytest.mark.anyio
async def test_another_process_sees_each_change_at_once(start: Start) -> None:
    one, other = await start(exact_up_to=0), await start()
    await one.register_memory_bank(_NOTES)
    for number in range(20):
        await one.insert_documents("notes", [_document("a", "aaa", number=number), _document(f"b{number}", "bbb")])
        reply = await other.query_documents("notes", "aaa", {"max_chunks": 1})
        assert reply.chunks[0].metadata == {"number": number}
        await other.delete_documents("notes", [f"b{number}"])
        assert await _found(one, "notes", "bbb", max_chunks=5, score_threshold=0.9) == []


@pytest.mark.anyio
async def test_a_snapshot_is_used_and_a_damaged_one_is_made_again(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory = await start(exact_up_to=10)
    await memory.register_memory_bank(_NOTES)
    texts = [f"{'abcdefgh'[i % 8] * (i % 7 + 1)}{'ijklmnop'[i // 8 % 8] * (i % 5)}" for i in range(1500)]
    await memory.insert_documents("notes", [_document(str(i), text) for i, text in enumerate(texts)])
    expected = await _found(memory, "notes", "aaiii", max_chunks=5)
    snapshot = tmp_path / "memory.sqlite.1.faiss"
    deadline = time.monotonic() + 30
    while not snapshot.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert snapshot.stat().st_mode & 0o777 == 0o600
    await memory.shutdown()

    memory = await start(exact_up_to=10)
    assert memory._indexes._indexes[1].in_graph == 1500
    scores = [round(score, 5) for _, score in expected]
    assert [round(score, 5) for _, score in await _found(memory, "notes", "aaiii", max_chunks=5)] == scores
    # It is stale: what it has is removed, and what is new is not in it.
    gone = [name for name, _ in expected]
    await memory.delete_documents("notes", gone)
    await memory.insert_documents("notes", [_document("new", "aaiii")])
    await memory.shutdown()
    memory = await start(exact_up_to=10)
    assert (await _found(memory, "notes", "aaiii", max_chunks=1))[0][0] == "new"
    assert not {*gone} & {name for name, _ in await _found(memory, "notes", "aaiii", max_chunks=1000)}
    await memory.shutdown()

    snapshot.write_bytes(snapshot.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        memory = await start(exact_up_to=10)
    assert "the index is built again: it is damaged" in caplog.text
    assert (await _found(memory, "notes", "aaiii", max_chunks=1))[0][0] == "new"


@pytest.mark.anyio
async def test_a_model_of_another_dimension_is_refused(start: Start, model: Model) -> None:
    memory = await start()
    await memory.register_memory_bank(_NOTES)
    await memory.insert_documents("notes", [_document("a", "aaa")])
    model.dimension = 9
    with pytest.raises(ConflictError, match="vectors of 9 numbers"):
        await memory.insert_documents("notes", [_document("b", "bbb")])
    with pytest.raises(ConflictError, match="vectors of 9 numbers"):
        await memory.query_documents("notes", "aaa")


@pytest.mark.parametrize("after_s", [0.05, 0.15, 0.3])
@pytest.mark.anyio
async def test_killed_inserts_are_there_whole_or_not_at_all(start: Start, tmp_path: Path, after_s: float) -> None:
    script = Path(__file__).with_name("inserting.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "memory.sqlite")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(after_s)
    finally:
        process.send_signal(signal.SIGKILL)
        answered = [int(line) for line in process.stdout.read().split()]
        process.wait()
        process.stdout.close()
    memory = await start()
    with apsw.Connection(str(tmp_path / "memory.sqlite")) as db:
        assert db.execute("PRAGMA integrity_check").get == "ok"
        calls = dict(db.execute("SELECT json_extract(metadata, '$.call'), count(*) FROM chunks GROUP BY 1").fetchall())
        vectors = db.execute("SELECT count(*) FROM vectors").get
    assert {*calls.values()} <= {_HALF}
    assert {*answered} <= {*calls}
    assert vectors == sum(calls.values())
    assert len(await _found(memory, "notes", "abc", max_chunks=1000)) == min(1000, vectors)


@pytest.mark.anyio
async def test_a_full_disk_loses_nothing_and_inserts_go_on_when_there_is_room(start: Start, tmp_path: Path) -> None:
    script = Path(__file__).with_name("inserting.py")
    result = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "memory.sqlite"), "full"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    memory = await start()
    found = await _found(memory, "notes", "abc", max_chunks=1000)
    assert {name.split("-")[0] for name, _ in found} == {"before", "after"}


@pytest.mark.anyio
async def test_a_place_that_cannot_be_used_is_named(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ProviderUnavailableError, match="file/memory.sqlite"):
        await start(path=tmp_path / "file" / "memory.sqlite")
    (tmp_path / "damaged").write_bytes(b"no SQLite file" * 500)
    with pytest.raises(BackendError, match="damaged"):
        await start(path=tmp_path / "damaged")
