"""Jobs as callers and providers see them: what runs, what is refused, retries, cancelling, items, workers that die."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import pytest
from work_fake import WorkFake, ended, until, worker, workers

from llamastack.provider import (
    AuthenticationError,
    BackendError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    ProviderUnavailableError,
    RequestTooLargeError,
    StoreUnavailableError,
)
from llamastack.provider.context import current_context, use_context
from llamastack.provider.jobs import CurrentJob, current_job
from llamastack.provider.memory_store import MemoryStore
from llamastack.provider.store import Record
from llamastack_provider_jobs import job_store
from llamastack_provider_jobs import worker as worker_module
from llamastack_provider_jobs.api import JobItemStatus, JobStatus

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks often, and pauses shortly before another attempt."""
    monkeypatch.setattr(worker_module, "_WATCH_S", 0.02)
    monkeypatch.setattr(worker_module, "_POLL_S", 0.02)
    monkeypatch.setattr(worker_module, "_FIRST_PAUSE_S", 0.01)


def this_job() -> CurrentJob:
    job = current_job("work", "do")
    assert job is not None
    return job


async def test_a_call_runs_in_the_background() -> None:
    work = WorkFake()
    async with worker(MemoryStore(), work) as at:
        created = await at.jobs.create_job("work", "do", {"name": "a", "size": 2})
        assert (created.status, created.identifier, created.attempt) == (JobStatus.queued, "a", 0)
        job = await ended(at.jobs, created.job_id)
        assert (job.status, job.attempt, job.error) == (JobStatus.completed, 1, None)
        assert job.result == {"did": {"name": "a", "size": 2}}
        assert job.finished_at is not None
        assert job.started_at is not None
        assert job.created_at <= job.started_at <= job.finished_at
        [listed] = (await at.jobs.list_jobs()).data
        assert listed == job.model_copy(update={"result": None})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing", "do"), "api: 'nothing' is not one of work"),
        (("work", "gone"), "method: 'gone' of work cannot run as a job; allowed: do, add, pieces"),
        (("work", "of_bytes"), "method: 'of_bytes' of work cannot run as a job"),
        (("work", "list_work"), "method: 'list_work' of work cannot run as a job"),
        (("work", "pieces", {"stream": True}), "arguments.stream: a job has one reply, no stream"),
        (("work", "do", {}), "arguments.name: required field is missing"),
        (("work", "do", {"name": "a", "size": "x"}), "arguments.size: "),
        (("work", "do", {"name": "\ud800"}), "arguments: cannot be kept as JSON"),
    ],
)
async def test_what_cannot_run_is_refused_and_not_kept(arguments: Any, message: str) -> None:
    store = MemoryStore()
    async with worker(store, WorkFake()) as at:
        with pytest.raises(InvalidRequestError) as caught:
            await at.jobs.create_job(*arguments)
        assert str(caught.value).startswith(message)
        assert caught.value.param == message.partition(":")[0]
        assert kinds_with_records(store) == set()


def kinds_with_records(store: MemoryStore) -> set[str]:
    """What the store has of jobs."""
    kinds = {kind for kind, records in store._kinds.items() if any(record.value for record in records.values())}
    return {kind.split("/")[2] for kind in kinds if kind.startswith("kv/jobs/")}


async def test_what_the_caller_may_not_do_is_refused() -> None:
    async def refuse(_: Any) -> None:
        assert current_context().request_id == "of the caller"
        raise PermissionDeniedError("not you")

    async with worker(MemoryStore(), WorkFake(refuse=refuse)) as at:
        with use_context(request_id="of the caller"), pytest.raises(PermissionDeniedError, match="not you"):
            await at.jobs.create_job("work", "do", {"name": "a"})


async def test_a_job_has_nothing_of_the_request_that_created_it() -> None:
    seen: list[Any] = []

    async def do(_: Any) -> None:
        seen.append((current_context().principal, current_context().provider_data, current_context().request_id))

    async with worker(MemoryStore(), WorkFake(do)) as at:
        with use_context(provider_data={"key": "secret"}, request_id="r"):
            job = await at.jobs.create_job("work", "do", {"name": "a"})
        await ended(at.jobs, job.job_id)
    assert seen == [(None, None, f"{job.job_id}-1")]


async def test_arguments_and_results_of_any_size_up_to_the_limit() -> None:
    async def do(arguments: dict[str, Any]) -> dict[str, str]:
        assert arguments["name"] == text
        return {"text": "\u20ac" * arguments["size"]}

    text = '"\u20ac\\' * 1_500_000
    async with worker(MemoryStore(), WorkFake(do), max_bytes=12_000_000) as at:
        job = await ended(at.jobs, (await at.jobs.create_job("work", "do", {"name": text, "size": 3_500_000})).job_id)
        assert job.result == {"text": "\u20ac" * 3_500_000}
        job = await ended(at.jobs, (await at.jobs.create_job("work", "do", {"name": text, "size": 4_500_000})).job_id)
        assert job.status is JobStatus.failed
        assert job.error is not None
        assert (job.error.status, job.error.message) == (413, "result: 13,500,011 bytes of JSON, at most 12,000,000")
        with pytest.raises(RequestTooLargeError, match=r"^arguments: 21,000,011 bytes of JSON, at most 12,000,000$"):
            await at.jobs.create_job("work", "do", {"name": text * 2})


async def test_a_call_that_may_succeed_later_is_tried_again() -> None:
    async def do(_: Any) -> str:
        if len(work.calls) < 3:
            raise ProviderUnavailableError("down", provider_id="p")
        return "up again"

    work = WorkFake(do)
    async with worker(MemoryStore(), work) as at:
        job = await ended(at.jobs, (await at.jobs.create_job("work", "add", {"numbers": [1]})).job_id)
    assert (job.status, job.attempt, job.error) == (JobStatus.completed, 3, None)


async def test_a_backend_that_asks_to_wait_is_waited_for() -> None:
    async def do(_: Any) -> None:
        raise ProviderUnavailableError("busy", retry_after=60)

    async with worker(MemoryStore(), WorkFake(do)) as at:
        created = await at.jobs.create_job("work", "do", {"name": "a"})
        job = await until(at.jobs, created.job_id, lambda job: job.error is not None)
        assert (job.status, job.attempt) == (JobStatus.queued, 1)
        assert job.next_attempt_at is not None
        assert job.started_at is not None
        assert 59 < job.next_attempt_at - job.started_at < 70


@pytest.mark.parametrize(
    ("error", "attempts", "told"),
    [
        (ProviderUnavailableError("down"), 3, (503, "down")),
        (ProviderUnavailableError("down", should_retry=False), 1, (503, "down")),
        (BackendError("nonsense"), 1, (502, "nonsense")),
        (RuntimeError("a fault"), 1, (500, "RuntimeError; the log says why")),
        (
            AuthenticationError("no key"),
            1,
            (401, "no key (a job has no provider data of its caller: the key must be in the run config)"),
        ),
    ],
)
async def test_a_failed_job_says_why_and_can_be_retried(error: Exception, attempts: int, told: tuple[int, str]) -> None:
    fails = True

    async def do(_: Any) -> str:
        if fails:
            raise error
        return "done"

    work = WorkFake(do)
    async with worker(MemoryStore(), work, attempts=3) as at:
        created = await at.jobs.create_job("work", "do", {"name": "a"})
        job = await ended(at.jobs, created.job_id)
        assert job.status is JobStatus.failed
        assert job.error is not None
        assert (job.attempt, job.error.status, job.error.message) == (attempts, *told)
        fails = False
        again = await at.jobs.retry_job(created.job_id)
        assert (again.status, again.error, again.finished_at) == (JobStatus.queued, None, None)
        job = await ended(at.jobs, created.job_id)
        assert (job.status, job.result, job.attempt) == (JobStatus.completed, "done", 1)
        with pytest.raises(ConflictError, match="is completed; only a failed job can be retried"):
            await at.jobs.retry_job(created.job_id)
    assert work.calls == [{"name": "a"}] * (attempts + 1)


async def test_a_retry_is_checked_as_the_first_call_was() -> None:
    async def do(_: Any) -> None:
        raise BackendError("no")

    async def refuse(_: Any) -> None:
        raise PermissionDeniedError("not you")

    work = WorkFake(do)
    async with worker(MemoryStore(), work) as at:
        job = await ended(at.jobs, (await at.jobs.create_job("work", "do", {"name": "a"})).job_id)
        work.refuse = refuse
        with pytest.raises(PermissionDeniedError):
            await at.jobs.retry_job(job.job_id)
        assert (await at.jobs.get_job(job.job_id)).status is JobStatus.failed


async def test_a_running_job_is_cancelled_and_a_waiting_one_at_once() -> None:
    cancelled = anyio.Event()

    async def do(_: Any) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    async with worker(MemoryStore(), WorkFake(do), concurrency=1) as at:
        running = await at.jobs.create_job("work", "do", {"name": "a"})
        await until(at.jobs, running.job_id, lambda job: job.status is JobStatus.running)
        waiting = await at.jobs.create_job("work", "do", {"name": "b"})
        assert (await at.jobs.cancel_job(waiting.job_id)).status is JobStatus.cancelled
        asked = await at.jobs.cancel_job(running.job_id)
        assert (asked.status, asked.is_cancelling) == (JobStatus.running, True)
        job = await ended(at.jobs, running.job_id)
        assert (job.status, job.is_cancelling) == (JobStatus.cancelled, False)
        assert cancelled.is_set()
        assert (await at.jobs.cancel_job(running.job_id)).status is JobStatus.cancelled  # again, which does nothing
        with pytest.raises(NotFoundError, match="there is no job 'x'"):
            await at.jobs.cancel_job("x")


async def test_a_worker_that_stops_gives_its_job_back() -> None:
    store = MemoryStore()
    attempts: list[int] = []

    async def do(_: Any) -> str:
        attempts.append(this_job().attempt)
        if len(attempts) == 1:
            this_job().checkpoint = {"at": 5}
            this_job().report(5, 10, unit="pages", message="halfway")
            await anyio.sleep_forever()
        assert this_job().checkpoint == {"at": 5}
        return "done"

    work = WorkFake(do)
    async with worker(store, work, lease_s=3600) as first:
        created = await first.jobs.create_job("work", "do", {"name": "a"})
        job = await until(first.jobs, created.job_id, lambda job: job.progress.done == 5)
        assert (job.progress.total, job.progress.unit, job.progress.message) == (10, "pages", "halfway")
    async with worker(store, work) as second:
        job = await ended(second.jobs, created.job_id)
    assert (job.status, job.result, attempts) == (JobStatus.completed, "done", [1, 1])  # it is not to blame


async def test_the_job_of_a_dead_worker_is_taken_when_its_lease_ends() -> None:
    store = MemoryStore()

    async def do(_: Any) -> str:
        if len(work.calls) == 1:
            await anyio.sleep_forever()
        return f"attempt {this_job().attempt}"

    work = WorkFake(do)
    async with workers(store, work, 2, lease_s=3) as (first, second):
        created = await first.jobs.create_job("work", "do", {"name": "a"})
        await until(second.jobs, created.job_id, lambda job: job.status is JobStatus.running)
        busy = first if first.jobs._worker._free.value == 0 else second  # one that waits for a job has a place left
        busy.kill()
        with anyio.fail_after(10):
            job = await ended(second.jobs, created.job_id)
    assert job.result == "attempt 2"
    assert job.started_at is not None
    assert job.started_at - job.created_at >= 3


async def test_a_call_that_kills_every_worker_fails_in_the_end() -> None:
    store = MemoryStore()

    async def do(_: Any) -> None:
        await anyio.sleep_forever()

    work = WorkFake(do)
    for attempt in (1, 2):
        async with worker(store, work, lease_s=3, attempts=2) as at:
            if attempt == 1:
                created = await at.jobs.create_job("work", "do", {"name": "a"})
            await until(at.jobs, created.job_id, lambda job, attempt=attempt: len(work.calls) == attempt)
            at.kill()
    async with worker(store, work, lease_s=3, attempts=2) as at:
        job = await ended(at.jobs, created.job_id)
    assert job.error is not None
    assert (job.status, job.error.message) == (JobStatus.failed, "the worker died in each of 2 attempts")


async def test_many_workers_run_each_job_once() -> None:
    async def do(arguments: Any) -> Any:
        await anyio.sleep(0.001)
        return arguments["name"]

    work = WorkFake(do)
    async with workers(MemoryStore(), work, 4) as at:
        made = [await at[n % 4].jobs.create_job("work", "do", {"name": str(n)}) for n in range(60)]
        results = [(await ended(at[0].jobs, job.job_id)).result for job in made]
    assert results == [str(n) for n in range(60)]
    assert Counter(call["name"] for call in work.calls) == {str(n): 1 for n in range(60)}


# ---- items -----------------------------------------------------------------------------------------------------------


async def test_every_item_has_a_status_and_only_failed_ones_are_tried_again() -> None:
    tried: list[int] = []

    async def do(_: Any) -> None:
        job = this_job()
        for place in job.open_items([f"n{n}" for n in range(250)], "documents"):
            tried.append(place)
            fails = place in (3, 170) and len(tried) <= 250
            job.finish_item(place, InvalidRequestError(f"bad {place}") if fails else None)

    async with worker(MemoryStore(), WorkFake(do)) as at:
        job = await ended(at.jobs, (await at.jobs.create_job("work", "do", {"name": "a"})).job_id)
        assert job.status is JobStatus.failed
        assert job.error is not None
        assert job.error.message == "2 of 250 documents failed; the items of the job say why"
        assert (job.progress.done, job.progress.total, job.progress.failed) == (250, 250, 2)
        first = await at.jobs.list_job_items(job.job_id, limit=150)
        rest = await at.jobs.list_job_items(job.job_id, limit=150, after=first.last_id)
        assert (len(first.data), first.has_more, len(rest.data), rest.has_more) == (150, True, 100, False)
        items = [*first.data, *rest.data]
        assert [(item.place, item.name) for item in items] == [(n, f"n{n}") for n in range(250)]
        failed = {item.place: item.message for item in items if item.status is JobItemStatus.failed}
        assert failed == {3: "bad 3", 170: "bad 170"}
        await at.jobs.retry_job(job.job_id)
        job = await ended(at.jobs, job.job_id)
        assert (job.status, job.progress.done, job.progress.failed) == (JobStatus.completed, 250, 0)
        assert tried == [*range(250), 3, 170]
        with pytest.raises(InvalidRequestError, match=r"^after: 'x' is not the place of an item$"):
            await at.jobs.list_job_items(job.job_id, after="x")


async def test_a_later_attempt_goes_on_behind_what_is_done() -> None:
    store = MemoryStore()
    tried: list[int] = []

    async def do(_: Any) -> None:
        job = this_job()
        for place in job.open_items(["a", "b", "c", "d"]):
            if place == 2 and job.attempt == 1:
                raise ProviderUnavailableError("down")
            tried.append(place)
            job.finish_item(place)

    async with worker(store, WorkFake(do)) as at:
        job = await ended(at.jobs, (await at.jobs.create_job("work", "do", {"name": "a"})).job_id)
    assert (job.status, job.attempt, tried) == (JobStatus.completed, 2, [0, 1, 2, 3])


async def test_items_that_cannot_be_kept_as_they_are() -> None:
    async def do(_: Any) -> None:
        job = this_job()
        for place in job.open_items(["\ud800", "x" * 5000]):
            job.finish_item(place, BackendError("y" * 5000) if place else None)
        with pytest.raises(ValueError, match="item 0 is done already"):
            job.finish_item(0)
        with pytest.raises(ValueError, match="at most 262,144 bytes of JSON"):
            job.checkpoint = "x" * 300_000
        with pytest.raises(ValueError, match="finite"):
            job.report(float("nan"))

    async with worker(MemoryStore(), WorkFake(do)) as at:
        job = await ended(at.jobs, (await at.jobs.create_job("work", "do", {"name": "a"})).job_id)
        items = (await at.jobs.list_job_items(job.job_id)).data
    assert job.error is not None
    assert job.error.code == "items_failed"
    assert [(item.name, item.message) for item in items] == [("?", ""), ("x" * 1000, "y" * 1000)]


def test_only_the_method_of_the_job_sees_it() -> None:
    assert current_job("work", "do") is None


# ---- lists, and how long things are kept -----------------------------------------------------------------------------


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
