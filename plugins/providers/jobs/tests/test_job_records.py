"""Lists of jobs, how long jobs are kept, and stores that fail."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from work_fake import WorkFake, ended, kinds_with_records, this_job, until, worker

from llamastack.provider import (
    BackendError,
    InternalError,
    NotFoundError,
    StoreUnavailableError,
)
from llamastack.provider.memory_store import MemoryStore
from llamastack.provider.store import Record
from llamastack_provider_jobs import job_store
from llamastack_provider_jobs import worker as worker_module
from llamastack_provider_jobs.api import JobStatus

pytestmark = pytest.mark.anyio


async def test_the_list_has_pages_the_newest_first_and_a_status() -> None:
    async def do(arguments: Any) -> None:
        if arguments["name"] in "048":
            raise BackendError("no")

    async with worker(MemoryStore(), WorkFake(do)) as at:
        made: list[str] = []
        for n in range(10):
            made.append((await at.jobs.create_job("work", "do", {"name": str(n)})).job_id)
            await ended(at.jobs, made[-1])
            await anyio.sleep(0.002)  # ids are ordered by milliseconds
        first = await at.jobs.list_jobs(limit=7)
        rest = await at.jobs.list_jobs(limit=7, after=first.last_id)
        assert [job.job_id for job in [*first.data, *rest.data]] == made[::-1]
        assert (first.has_more, rest.has_more) == (True, False)
        failed = await at.jobs.list_jobs(status=JobStatus.failed)
        assert [job.identifier for job in failed.data] == ["8", "4", "0"]


async def test_a_finished_job_is_forgotten_with_all_that_belongs_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def do(arguments: Any) -> None:
        [place] = this_job().open_items(["a"])
        this_job().finish_item(place, BackendError("no") if arguments["name"] == "failing" else None)

    now = job_store.time.time()
    store = MemoryStore()
    async with worker(store, WorkFake(do), kept_s=100) as at:
        made = [(await at.jobs.create_job("work", "do", {"name": name})).job_id for name in ("failing", "fine")]
        for job_id in made:
            await ended(at.jobs, job_id)
        await until_nothing_is_open(store)
        assert kinds_with_records(store) == {"jobs", "items", "arguments", "result"}
        monkeypatch.setattr(job_store.time, "time", lambda: now + 99)
        assert len((await at.jobs.list_jobs()).data) == 2
        monkeypatch.setattr(job_store.time, "time", lambda: now + 5000)
        assert (await at.jobs.list_jobs()).data == []
        with pytest.raises(NotFoundError):
            await at.jobs.list_job_items(made[0])
        store._clean_at = 0
        await store.put("other", "x", "y")  # a store removes what has expired when it writes
    assert kinds_with_records(store) == set()


async def until_nothing_is_open(store: MemoryStore) -> None:
    with anyio.fail_after(5):
        while "open" in kinds_with_records(store):
            await anyio.sleep(0.01)


# ---- a store that fails ----------------------------------------------------------------------------------------------


class FailingStore(MemoryStore):
    """fails: whether writes fail now."""

    fails = False

    async def swap(
        self, kind: str, key: str, value: str | None, *, version: int | None, expires_at: float | None = None
    ) -> Record | None:
        if self.fails:
            raise StoreUnavailableError("the disk is full")
        return await super().swap(kind, key, value, version=version, expires_at=expires_at)


async def test_a_job_survives_a_store_that_fails_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    store = FailingStore()

    async def do(_: Any) -> str:
        store.fails = True
        this_job().report(1)
        await anyio.sleep(0.1)
        return "done"

    work = WorkFake(do)
    async with worker(store, work) as at:
        created = await at.jobs.create_job("work", "do", {"name": "a"})
        with anyio.fail_after(5):
            while not any("has ended, but that cannot be kept" in record.message for record in caplog.records):
                await anyio.sleep(0.01)
        store.fails = False
        job = await ended(at.jobs, created.job_id)
    assert (job.status, job.result, len(work.calls)) == (JobStatus.completed, "done", 1)


class SmallStore(MemoryStore):
    """A disk that has no room for a large value."""

    async def put(self, kind: str, key: str, value: str, *, expires_at: float | None = None) -> Record:
        if len(value) > 1000:
            raise StoreUnavailableError("the disk is full")
        return await super().put(kind, key, value, expires_at=expires_at)


async def test_a_result_that_the_disk_has_no_room_for_does_not_keep_its_job_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "_MOST_TRIES_TO_KEEP", 3)

    async def do(_: Any) -> str:
        return "x" * 2000

    async with worker(SmallStore(), WorkFake(do)) as at:
        created = await at.jobs.create_job("work", "do", {"name": "a"})
        job = await until(at.jobs, created.job_id, lambda job: job.error is not None)
    assert job.error is not None
    assert job.status is JobStatus.failed
    assert job.error.message == "what it gave cannot be kept: the disk is full"


async def test_a_job_without_its_arguments_makes_no_call() -> None:
    store, work = MemoryStore(), WorkFake()
    async with worker(store, work, concurrency=0) as idle:
        created = await idle.jobs.create_job("work", "do", {"name": "a"})
        await idle.jobs._store.arguments.delete(created.job_id)
    async with worker(store, work) as at:
        job = await ended(at.jobs, created.job_id)
        assert job.error is not None
        assert job.error.message == f"the arguments of job '{job.job_id}' are gone; create it again"
        with pytest.raises(InternalError, match="are gone; create it again"):
            await at.jobs.retry_job(job.job_id)
    assert work.calls == []


async def test_no_job_is_taken_while_the_store_fails(caplog: pytest.LogCaptureFixture) -> None:
    store = FailingStore()
    work = WorkFake()
    async with worker(store, work, concurrency=0) as idle:
        created = await idle.jobs.create_job("work", "do", {"name": "a"})
    store.fails = True
    async with worker(store, work) as at:
        await anyio.sleep(0.1)
        assert work.calls == []
        store.fails = False
        assert (await ended(at.jobs, created.job_id)).status is JobStatus.completed
    assert "no job can be taken: the disk is full" in caplog.text
