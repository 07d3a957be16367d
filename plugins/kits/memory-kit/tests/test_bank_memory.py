"""The base of memory providers: all or none under faults at every call, embeddings in order, one meaning of params."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_watch import LoopWatch

from llamastack.api import EmbeddingsResponse, ImageMedia, KeywordMemoryBank, MemoryBankDocument, VectorMemoryBank
from llamastack.api.models import Model
from llamastack.provider import (
    BackendError,
    ConflictError,
    Deps,
    InvalidRequestError,
    LlamaStackError,
    NotFoundError,
    ObjectNotFoundError,
    UnsupportedMemoryBankError,
)
from llamastack.provider.jobs import use_job
from llamastack_memory_kit import (
    Bank,
    BankMemory,
    ChunkSize,
    EmbeddingSettings,
    FoundChunk,
    Insert,
    Query,
    StagedStorage,
    StoredChunk,
    VectorMemory,
)

pytestmark = pytest.mark.anyio
BANK = VectorMemoryBank(identifier="b", embedding_model="m", chunk_size_in_tokens=2, overlap_size_in_tokens=0)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Failures:
    """Fails or blocks at one call of many, before or after it took effect."""

    def __init__(self, at: int = -1, *, after: bool = False, blocks: bool = False) -> None:
        self.calls = 0
        self._at = at
        self._after = after
        self._blocks = blocks
        self.reached = anyio.Event()

    async def around(self, effect: Callable[[], Any]) -> Any:
        self.calls += 1
        fails = self.calls - 1 == self._at
        if fails and not self._after:
            await self._fail()
        await anyio.lowlevel.checkpoint()
        done = effect()
        if fails:
            await self._fail()
        return done

    async def _fail(self) -> None:
        self.reached.set()
        if self._blocks:
            await anyio.sleep_forever()
        raise BackendError("the disk is full")


class Embeddings:
    """Scripted vectors: the number in each text. `spoil` changes a reply."""

    def __init__(self) -> None:
        self.failures = Failures()
        self.spoil: Callable[[list[list[float]]], list[list[float]]] = lambda vectors: vectors
        self.running = self.most = 0

    async def embeddings(self, model: str, contents: Sequence[Any]) -> EmbeddingsResponse:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            numbers = [float(sum(map(ord, str(text)))) for text in contents]
            await anyio.sleep(0.001 * (len(contents) % 3))
            return await self.failures.around(
                lambda: EmbeddingsResponse(embeddings=self.spoil([[number, 1.0] for number in numbers]))
            )
        finally:
            self.running -= 1

    async def get_model(self, identifier: str) -> Model:
        return Model(identifier=identifier, provider_id="embedder")


class Kept(VectorMemory):
    """Banks in lists, with one call of the backend for each change."""

    bank_types = ("vector", "keyword")

    def __init__(self, config: EmbeddingSettings, deps: Deps) -> None:
        super().__init__(config, deps)
        self.failures = Failures()
        self.banks: dict[str, Bank] = {}
        self.chunks: dict[str, list[StoredChunk]] = {}

    async def list_banks(self) -> list[Bank]:
        return [*self.banks.values()]

    async def create_bank(self, bank: Bank) -> None:
        self.banks[bank.identifier] = bank
        self.chunks[bank.identifier] = []

    async def drop_bank(self, bank: Bank) -> None:
        del self.banks[bank.identifier], self.chunks[bank.identifier]

    def _rest(self, bank: Bank, document_ids: Sequence[str]) -> list[StoredChunk]:
        if bank.identifier not in self.chunks:
            raise NotFoundError("no such bank")
        return [chunk for chunk in self.chunks[bank.identifier] if chunk.document_id not in document_ids]

    async def store(self, bank: Bank, insert: Insert) -> None:
        rest = self._rest(bank, insert.document_ids)
        await self.failures.around(lambda: self.chunks.update({bank.identifier: [*rest, *insert.chunks]}))

    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        return [FoundChunk(chunk, chunk.vector[0] if chunk.vector else 0.0) for chunk in self._rest(bank, ())]

    async def delete(self, bank: Bank, document_ids: Sequence[str]) -> None:
        self.chunks[bank.identifier] = self._rest(bank, document_ids)


class Staged(StagedStorage, Kept):
    """The same without transactions: pending chunks, by their generation."""

    chunks_per_write = 2

    def __init__(self, config: EmbeddingSettings, deps: Deps) -> None:
        super().__init__(config, deps)
        self.pending: dict[int, list[StoredChunk]] = {}
        self.was_publishing = False

    async def stage(self, bank: Bank, insert: Insert, chunks: Sequence[StoredChunk]) -> None:
        assert len(chunks) <= self.chunks_per_write
        await self.failures.around(lambda: self.pending.setdefault(insert.generation, []).extend(chunks))

    async def publish(self, bank: Bank, insert: Insert) -> None:
        def show() -> None:
            rest = self._rest(bank, insert.document_ids)
            self.chunks[bank.identifier] = [*rest, *self.pending.pop(insert.generation, [])]

        self.was_publishing = True
        await self.failures.around(show)
        self.was_publishing = False

    async def discard(self, bank: Bank, insert: Insert) -> None:
        self.pending.pop(insert.generation, None)


async def start(kind: type[Kept] = Kept, **config: Any) -> tuple[Kept, Embeddings]:
    embeddings = Embeddings()
    deps = Deps(provider_id="docs", apis={"inference": embeddings, "models": embeddings})
    memory = kind(EmbeddingSettings(**config), deps)
    await memory.initialize()
    await memory.register_memory_bank(BANK)
    return memory, embeddings


def documents(**texts: str) -> list[MemoryBankDocument]:
    return [MemoryBankDocument(document_id=name, content=text, metadata={"of": name}) for name, text in texts.items()]


def stored(memory: Kept) -> dict[str, str]:
    """The text of each document that is stored."""
    found: dict[str, str] = {}
    for chunk in memory.chunks["b"]:
        found[chunk.document_id] = f"{found.get(chunk.document_id, '')} {chunk.content}".strip()
    return found


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
async def test_all_or_none_under_a_failure_at_every_call(kind: type[Kept], cancel: bool, after: bool) -> None:
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


class JobFake:
    """Keeps what a method reports; a `CurrentJob`."""

    id, attempt = "job-1", 1
    checkpoint: object = None

    def __init__(self) -> None:
        self.finished: dict[int, LlamaStackError | None] = {}
        self.names: Sequence[str] = ()

    def report(self, done: float, total: float | None = None, *, unit: str = "", message: str = "") -> None:
        raise NotImplementedError

    def open_items(self, names: Sequence[str], unit: str = "items") -> list[int]:
        assert unit == "documents"
        self.names = names
        return [place for place in range(len(names)) if place not in self.finished]

    def finish_item(self, place: int, error: LlamaStackError | None = None) -> None:
        self.finished[place] = error


async def test_an_insert_as_a_job_gives_each_document_a_status() -> None:
    memory, _ = await start()
    given = [*documents(a="one"), MemoryBankDocument(document_id="b", content="file:///x"), *documents(c="three")]
    job = JobFake()
    with use_job("memory", "insert_documents", job):
        await memory.insert_documents("b", given)
    assert job.names == ["a", "b", "c"]
    params = {place: error and error.param for place, error in job.finished.items()}
    assert params == {0: None, 1: "documents[1].content", 2: None}
    assert stored(memory) == {"a": "one", "c": "three"}
    await memory.shutdown()


async def test_a_job_goes_on_behind_what_is_stored() -> None:
    memory, embeddings = await start(embedding_batch_size=8)
    texts = {f"n{n:03d}": f"text{n}" for n in range(160)}
    job = JobFake()
    embeddings.failures = Failures(10)  # in the second batch of documents: 8 calls each
    with use_job("memory", "insert_documents", job):
        # What concerns all documents ends the attempt.
        with pytest.raises(BackendError, match="the disk is full"):
            await memory.insert_documents("b", documents(**texts))
        assert job.finished == dict.fromkeys(range(64))
        assert stored(memory) == dict([*texts.items()][:64])
        calls = embeddings.failures.calls
        await memory.insert_documents("b", documents(**texts))
    assert job.finished == dict.fromkeys(range(160))
    assert stored(memory) == texts
    assert embeddings.failures.calls - calls == 12  # in batches, as a plain insert does
    await memory.shutdown()


async def test_a_job_stores_the_rest_of_a_batch_at_once() -> None:
    memory, embeddings = await start(embedding_batch_size=64)
    given = documents(**{f"n{n:02d}": f"text{n}" for n in range(60)})
    for bad in (7, 30, 59):
        given[bad] = MemoryBankDocument(document_id=f"n{bad:02d}", content="file:///x")
    job, calls = JobFake(), embeddings.failures.calls
    with use_job("memory", "insert_documents", job):
        await memory.insert_documents("b", given)
    assert {place for place, error in job.finished.items() if error is not None} == {7, 30, 59}
    assert len(stored(memory)) == 57
    assert embeddings.failures.calls - calls == 1
    await memory.shutdown()


async def test_a_job_finds_the_document_that_an_error_does_not_name() -> None:
    memory, embeddings = await start(embedding_batch_size=1)

    def refuse(vectors: list[list[float]]) -> list[list[float]]:
        if vectors == [[float(sum(map(ord, "bad"))), 1.0]]:
            raise InvalidRequestError("the model reads no such text")
        return vectors

    embeddings.spoil = refuse
    job = JobFake()
    with use_job("memory", "insert_documents", job):
        await memory.insert_documents("b", documents(a="one", b="bad", c="three"))
    assert [error and error.message for error in job.finished.values()] == [None, "the model reads no such text", None]
    assert stored(memory) == {"a": "one", "c": "three"}
    await memory.shutdown()


async def test_a_job_refuses_an_id_that_is_there_twice_before_it_stores_anything() -> None:
    memory, _ = await start()
    job = JobFake()
    with use_job("memory", "insert_documents", job), pytest.raises(InvalidRequestError) as caught:
        await memory.insert_documents("b", [*documents(a="one", b="two"), *documents(a="three")])
    assert caught.value.param == "documents[2].document_id"
    assert (stored(memory), job.names) == ({}, ())
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
        assert caught.value.message.endswith(
            "; allowed in params: max_chunks (1 to 1000, default 3), score_threshold (a number)"
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
