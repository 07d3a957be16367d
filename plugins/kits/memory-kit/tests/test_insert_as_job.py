"""`insert_documents` as a job: a status for each document, batches, attempts that go on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from bank_memory_fake import Failures, documents, start, stored

from llamastack.api import MemoryBankDocument
from llamastack.provider import (
    BackendError,
    InvalidRequestError,
    LlamaStackError,
)
from llamastack.provider.jobs import use_job

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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
