"""The base of memory providers: all or none under faults at every call, embeddings in order, one meaning of params."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from bank_memory_fake import BANK, Embeddings, Failures, Kept, Staged, documents, start, stored
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_watch import LoopWatch

from llamastack.api import ImageMedia, KeywordMemoryBank, MemoryBankDocument
from llamastack.provider import (
    BackendError,
    ConflictError,
    Deps,
    InvalidRequestError,
    LlamaStackError,
    ObjectNotFoundError,
    UnsupportedMemoryBankError,
)
from llamastack_memory_kit import (
    Bank,
    BankMemory,
    ChunkSize,
    EmbeddingSettings,
    staged_storage,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


OLD = {"kept": "k0 k1 k2 k3", "replaced": "r0 r1 r2 r3 r4"}
NEW = {"replaced": "n0 n1 n2", "emptied": "", "added": "a0 a1 a2 a3 a4"}
WITH_NEW = {"kept": OLD["kept"], "replaced": NEW["replaced"], "added": NEW["added"]}


async def insert_with(kind: type[Kept], embedding: Failures, backend: Failures, *, cancel: bool) -> bool:
    """An insert into a bank with the old documents. Returns whether the failure was reached."""
    memory, embeddings = await start(kind, embedding_batch_size=1)
    await memory.insert_documents("b", documents(**OLD))
    assert stored(memory) == OLD
    embeddings.failures, memory.failures = embedding, backend

    async def insert() -> None:
        try:
            await memory.insert_documents("b", documents(**NEW))
        except BackendError:
            assert not cancel

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(insert)
        if cancel:
            with anyio.move_on_after(1):
                while not embedding.reached.is_set() and not backend.reached.is_set() and stored(memory) == OLD:
                    await anyio.sleep(0.001)
            tasks.cancel_scope.cancel()
    reached = embedding.reached.is_set() or backend.reached.is_set()
    assert stored(memory) in ((OLD, WITH_NEW) if reached else (WITH_NEW,))
    if embedding.reached.is_set():
        assert stored(memory) == OLD
    if isinstance(memory, Staged) and not memory.was_publishing:
        assert memory.pending == {}
    embeddings.failures, memory.failures = Failures(), Failures()
    await memory.insert_documents("b", documents(**NEW))  # nothing is left behind that is in the way
    assert stored(memory) == WITH_NEW
    await memory.shutdown()
    return reached


@pytest.mark.parametrize("kind", [Kept, Staged])
@pytest.mark.parametrize("cancel", [False, True], ids=["error", "cancelled"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_all_or_none_under_a_failure_at_every_call(
    kind: type[Kept], cancel: bool, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staged_storage, "_PUBLISH_SECONDS", 0.05)
    for which in range(2):
        at = 0
        while True:
            failing = Failures(at, after=after, blocks=cancel)
            first, second = (failing, Failures()) if which == 0 else (Failures(), failing)
            if not await insert_with(kind, first, second, cancel=cancel):
                break
            at += 1
        assert at >= (5 if which == 0 else 1)


@settings(deadline=None, max_examples=40)
@given(
    texts=st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 9), max_size=6),
    again=st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 9), max_size=6),
    batch=st.integers(1, 5),
    concurrency=st.integers(1, 4),
)
def test_each_document_is_its_last_version(
    texts: dict[str, int], again: dict[str, int], batch: int, concurrency: int
) -> None:
    def text(name: str, length: int, version: int) -> str:
        return " ".join(f"{name}{version}{place}" for place in range(length))

    async def check() -> None:
        memory, embeddings = await start(Staged, embedding_batch_size=batch, embedding_concurrency=concurrency)
        for version, names in enumerate((texts, again)):
            await memory.insert_documents(
                "b", documents(**{name: text(name, length, version) for name, length in names.items()})
            )
        wanted = {name: text(name, length, 0) for name, length in texts.items()}
        wanted |= {name: text(name, length, 1) for name, length in again.items()}
        assert stored(memory) == {name: content for name, content in wanted.items() if content}
        assert embeddings.most <= concurrency
        for chunk in memory.chunks["b"]:
            assert list(chunk.vector) == [float(sum(map(ord, chunk.content))), 1.0]
            assert chunk.metadata == {"of": chunk.document_id}
        await memory.shutdown()

    anyio.run(check)


async def test_each_document_has_a_status_and_work_can_continue() -> None:
    memory, _ = await start()
    given = [*documents(a="one"), MemoryBankDocument(document_id="b", content="file:///x"), *documents(c="three")]
    found = [status async for status in memory.insert_each("b", given)]
    assert [(status.place, status.document_id) for status in found] == [(0, "a"), (1, "b"), (2, "c")]
    assert [status.error and status.error.param for status in found] == [None, "documents[1].content", None]
    assert stored(memory) == {"a": "one", "c": "three"}
    given[2] = documents(c="four")[0]
    assert [status.place async for status in memory.insert_each("b", given, places=[2])] == [2]
    assert stored(memory) == {"a": "one", "c": "four"}
    with pytest.raises(ObjectNotFoundError):
        _ = [status async for status in memory.insert_each("nope", given)]
    await memory.shutdown()


NAN = float("nan")
Spoil = Callable[[list[list[float]]], list[list[float]]]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v: v[1:], "made 2 vectors of 3 texts"),
        (lambda v: [*v, v[0]], "made 4 vectors of 3 texts"),
        (lambda v: [each[:1] for each in v], "makes vectors of 1 numbers, but memory bank 'b' was made for 2"),
        (lambda v: [v[0], v[1][:1], v[2]], "makes vectors of 1 and of 2 numbers"),
        (lambda v: [v[0], [NAN, 1.0], v[2]], "made a vector with a number that is not finite"),
    ],
)
async def test_wrong_vectors_name_model_and_provider(spoil: Spoil, message: str) -> None:
    memory, embeddings = await start()
    embeddings.spoil = spoil
    with pytest.raises((BackendError, ConflictError)) as caught:
        await memory.insert_documents("b", documents(a="a b c d e f"))
    assert caught.value.message == f"embedding model 'm' of provider 'embedder' {message}"
    assert caught.value.provider_id == "docs"
    assert stored(memory) == {}
    await memory.shutdown()


async def test_a_model_with_empty_vectors_registers_nothing() -> None:
    memory, embeddings = await start()
    embeddings.spoil = lambda vectors: [[] for _ in vectors]
    with pytest.raises(BackendError, match="makes empty vectors") as caught:
        await memory.register_memory_bank(BANK.model_copy(update={"identifier": "other"}))
    assert caught.value.param == "memory_bank.embedding_model"
    assert [*memory.banks] == ["b"]
    await memory.shutdown()


async def test_an_insert_has_a_limit_of_chunks() -> None:
    memory, _ = await start(max_insert_chunks=2)
    await memory.insert_documents("b", documents(a="1 2 3 4"))
    with pytest.raises(InvalidRequestError, match="an insert may have at most 2 chunks") as caught:
        await memory.insert_documents("b", documents(a="1 2 3", c="1"))
    assert caught.value.param == "documents[1]"
    await memory.shutdown()


class Words(Kept):
    """Each word is a chunk."""

    def chunk_size(self, bank: Bank) -> ChunkSize:
        return ChunkSize(1)


async def test_an_insert_of_many_chunks_does_not_hold_up_the_loop() -> None:
    memory, _ = await start(Words)
    await memory.register_memory_bank(KeywordMemoryBank(identifier="k"))
    text = "word " * 50_000
    with LoopWatch() as watch:
        await memory.insert_documents("k", documents(a=text))
        found = watch.take()
    assert len(memory.chunks["k"]) == 50_000
    assert found.step_s < 0.05, found.step
    await memory.shutdown()


async def test_wrong_params_say_what_is_allowed() -> None:
    memory, _ = await start()
    for params, param in (({"max_chunk": 1}, "params.max_chunk"), ({"max_chunks": 0}, "params.max_chunks")):
        with pytest.raises(InvalidRequestError) as caught:
            await memory.query_documents("b", "q", params)
        assert caught.value.param == param
        assert "; allowed in params: max_chunks (1 to 1000, default 3), score_threshold (a number), mode (" in (
            caught.value.message
        )
    with pytest.raises(InvalidRequestError, match="cannot contain images"):
        await memory.query_documents("b", ["q", ImageMedia(image="http://x/y.png")])
    await memory.shutdown()


async def test_params_mean_the_same_whatever_the_search_returns() -> None:
    """The search of this provider knows neither an order nor limits."""
    memory, _ = await start()
    await memory.insert_documents("b", documents(a="1", b="3", c="2", d="4"))
    found = await memory.query_documents("b", ["q", "more"])
    assert [chunk.document_id for chunk in found.chunks] == ["d", "b", "c"]
    assert found.scores == sorted(found.scores, reverse=True)
    found = await memory.query_documents("b", "q", {"max_chunks": 4, "score_threshold": float(ord("3"))})
    assert [chunk.document_id for chunk in found.chunks] == ["d", "b"]
    await memory.shutdown()


async def test_banks_of_other_types_have_no_vectors() -> None:
    memory, embeddings = await start()
    await memory.register_memory_bank(KeywordMemoryBank(identifier="words"))
    embeddings.failures = Failures(0)
    await memory.insert_documents("words", documents(a="one"))
    assert (await memory.query_documents("words", "one")).scores == [0.0]
    assert memory.banks["words"].dimension == 0
    await memory.shutdown()


async def test_a_bank_that_is_replaced_during_an_insert_is_a_conflict() -> None:
    memory, embeddings = await start()
    embeddings.failures = Failures(0, blocks=True)
    caught: list[LlamaStackError] = []

    async def insert() -> None:
        try:
            await memory.insert_documents("b", documents(a="one"))
        except LlamaStackError as error:
            caught.append(error)

    release = anyio.Event()
    embeddings.failures._fail = release.wait  # type: ignore[method-assign, assignment]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(insert)
        await anyio.sleep(0.01)
        await memory.unregister_memory_bank(BANK)
        await memory.register_memory_bank(BANK.model_copy(update={"chunk_size_in_tokens": 3}))
        release.set()
    assert isinstance(caught[0], ConflictError)
    assert stored(memory) == {}
    await memory.shutdown()


async def test_a_keyword_provider_refuses_vector_banks() -> None:
    class Keywords(Kept):
        bank_types = ("keyword",)

    embeddings = Embeddings()
    memory: BankMemory = Keywords(EmbeddingSettings(), Deps(provider_id="docs", apis={"inference": embeddings}))
    with pytest.raises(UnsupportedMemoryBankError, match="keeps banks of type 'keyword', not 'vector'"):
        await memory.register_memory_bank(BANK)


async def test_queries_do_not_wait_for_inserts() -> None:
    memory, embeddings = await start(embedding_batch_size=1, embedding_concurrency=1)
    embeddings.failures = Failures(0, blocks=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(memory.insert_documents, "b", documents(a="1 2 3 4 5 6"))
        await embeddings.failures.reached.wait()
        with anyio.fail_after(5):
            assert (await memory.query_documents("b", "q")).chunks == []
        tasks.cancel_scope.cancel()
    await memory.shutdown()
