"""Jobs and the workers that run them: failures, retries, cancelling, workers that stop, die and lose their jobs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import pytest
from work_fake import WorkFake, ended, this_job, until, worker, workers

from llamastack.provider import (
    AuthenticationError,
    BackendError,
    ConflictError,
    InternalError,
    NotFoundError,
    PermissionDeniedError,
    ProviderUnavailableError,
)
from llamastack.provider.memory_store import MemoryStore
from llamastack.provider.store import Record
from llamastack_provider_jobs import job_store
from llamastack_provider_jobs import worker as worker_module
from llamastack_provider_jobs.api import JobStatus

pytestmark = pytest.mark.anyio


async def test_a_call_that_may_succeed_later_is_tried_again() -> None:
    async def do(_: Any) -> str:
        if len(work.calls) < 3:
            raise ProviderUnavailableError("down", provider_id="p")
        return "up again"

    work = WorkFake(do)
    async with worker(MemoryStore(), work) as at:
        job = await ended(at.jobs, (await at.jobs.create_job("work", "add", {"numbers": [1]})).job_id)
    assert (job.status, job.attempt, job.error) == (JobStatus.completed, 3, None)


@pytest.mark.parametrize(("asked", "waits"), [(60, 60), (10**9, 3600)])
async def test_a_backend_that_asks_to_wait_is_waited_for(asked: float, waits: float) -> None:
    async def do(_: Any) -> None:
        raise ProviderUnavailableError("busy", retry_after=asked)

    async with worker(MemoryStore(), WorkFake(do)) as at:
        created = await at.jobs.create_job("work", "do", {"name": "a"})
        job = await until(at.jobs, created.job_id, lambda job: job.error is not None)
        assert (job.status, job.attempt) == (JobStatus.queued, 1)
        assert job.next_attempt_at is not None
        assert job.started_at is not None
        assert waits - 1 < job.next_attempt_at - job.started_at < waits + 10


@pytest.mark.parametrize(
    ("error", "attempts", "told"),
    [
        (ProviderUnavailableError("down", should_retry=False), 1, (503, "down")),
        (BackendError("nonsense"), 1, (502, "nonsense")),
        (RuntimeError("a fault"), 1, (500, "work.do: RuntimeError; the log says why")),
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
    async with worker(MemoryStore(), work) as at:
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


async def test_a_job_whose_backend_stays_down_fails_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def do(_: Any) -> None:
        job = this_job()
        places = job.open_items(["a", "b"])
        if len(work.calls) == 3:
            job.finish_item(places[0])  # it gets on, so that the time begins anew
            clock[0] += 150
        if len(work.calls) == 6:
            clock[0] += 150
        raise ProviderUnavailableError("down")

    clock = [1_000_000.0]
    monkeypatch.setattr(worker_module, "pause_s", lambda *_: 0.0)
    work = WorkFake(do)
    async with worker(MemoryStore(), work, retry_for_s=100) as at:
        monkeypatch.setattr(at.jobs._store, "now", lambda: clock[0])
        job = await ended(at.jobs, (await at.jobs.create_job("work", "do", {"name": "a"})).job_id)
    assert job.error is not None
    assert (job.status, job.error.message, job.attempt) == (JobStatus.failed, "down", 6)


async def test_progress_that_goes_up_and_down_does_not_go_on_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async def do(_: Any) -> None:
        clock[0] += 30
        this_job().report(50 if len(work.calls) % 2 else 10)
        raise ProviderUnavailableError("down")

    clock = [1_000_000.0]
    monkeypatch.setattr(worker_module, "pause_s", lambda *_: 0.0)
    work = WorkFake(do)
    async with worker(MemoryStore(), work, retry_for_s=100) as at:
        monkeypatch.setattr(at.jobs._store, "now", lambda: clock[0])
        job = await ended(at.jobs, (await at.jobs.create_job("work", "do", {"name": "a"})).job_id)
    assert (job.status, job.attempt) == (JobStatus.failed, 5)


@pytest.mark.parametrize("after", range(5))
async def test_a_job_that_is_retried_while_others_look_for_jobs_runs_again(after: int) -> None:
    """Another worker looks between any two changes of the store."""

    class Looking(MemoryStore):
        left = -1

        async def swap(self, kind: str, key: str, value: str | None, **how: Any) -> Record | None:
            await self.look()
            return await super().swap(kind, key, value, **how)

        async def put(self, kind: str, key: str, value: str, **how: Any) -> Record:
            await self.look()
            return await super().put(kind, key, value, **how)

        async def look(self) -> None:
            self.left -= 1
            if self.left == 0:
                claim = await other.claim("other")
                if claim is not None:
                    await other.end_held(claim, JobStatus.completed)

    async def do(_: Any) -> str:
        if len(work.calls) == 1:
            raise BackendError("no")
        return "done"

    work, store = WorkFake(do), Looking()
    async with worker(store, work) as at:
        other = at.jobs._store
        created = await at.jobs.create_job("work", "do", {"name": "a"})
        await ended(at.jobs, created.job_id)
        store.left = after + 1
        await at.jobs.retry_job(created.job_id)
        await until(at.jobs, created.job_id, lambda job: job.status is JobStatus.completed)


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


async def test_a_job_that_is_cancelled_while_it_fails_is_not_tried_again() -> None:
    async def do(_: Any) -> None:
        await at.jobs.cancel_job(created.job_id)
        raise ProviderUnavailableError("down")

    work = WorkFake(do)
    async with worker(MemoryStore(), work, concurrency=0) as idle:
        created = await idle.jobs.create_job("work", "do", {"name": "a"})
        async with worker(idle.jobs._deps._store, work) as at:
            job = await ended(at.jobs, created.job_id)
    assert (job.status, len(work.calls)) == (JobStatus.cancelled, 1)


async def test_a_new_job_does_not_wait_for_those_that_wait_themselves() -> None:
    async def do(arguments: Any) -> str:
        if arguments["name"] == "down":
            raise ProviderUnavailableError("down", retry_after=100)
        return "done"

    class CountingStore(MemoryStore):
        """further: how often more than the first due jobs were read."""

        further = 0

        async def scan(self, kind: str, **how: Any) -> list[Record]:
            self.further += "open" in kind and how["after"] != ""
            return await super().scan(kind, **how)

    store = CountingStore()
    async with worker(store, WorkFake(do), concurrency=10) as at:
        for _ in range(300):
            await at.jobs.create_job("work", "do", {"name": "down"})
        with anyio.fail_after(10):
            while any(job.error is None for job in (await at.jobs.list_jobs(limit=300)).data):
                await anyio.sleep(0.01)
        store.further = 0
        job = await ended(at.jobs, (await at.jobs.create_job("work", "do", {"name": "new"})).job_id)
        assert job.result == "done"
        assert store.further == 0


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
        async with worker(store, work, lease_s=3, max_worker_deaths=2) as at:
            if attempt == 1:
                created = await at.jobs.create_job("work", "do", {"name": "a"})
            await until(at.jobs, created.job_id, lambda job, attempt=attempt: len(work.calls) == attempt)
            at.kill()
    async with worker(store, work, lease_s=3, max_worker_deaths=2) as at:
        job = await ended(at.jobs, created.job_id)
    assert job.error is not None
    assert (job.status, job.error.message) == (
        JobStatus.failed,
        ("its lease ended 2 times: its workers died, or stood still for longer than 'lease_s'"),
    )


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


async def test_a_worker_that_has_lost_its_job_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "llamastack.jobs")
    store = MemoryStore()
    other_is_done = anyio.Event()

    async def do(_: Any) -> str:
        attempt = this_job().attempt
        if attempt == 1:
            await other_is_done.wait()
        return f"attempt {attempt}"

    async def paused(*_: Any) -> None:
        await anyio.sleep_forever()

    work = WorkFake(do)
    async with worker(store, work, lease_s=3) as first:
        monkeypatch.setattr(first.jobs._worker, "_watch", paused)  # as a process that was stopped
        created = await first.jobs.create_job("work", "do", {"name": "a"})
        await until(first.jobs, created.job_id, lambda job: job.status is JobStatus.running)
        async with worker(store, work) as second:
            assert (await ended(second.jobs, created.job_id)).result == "attempt 2"
            other_is_done.set()
            await anyio.sleep(0.1)
            job = await second.jobs.get_job(created.job_id)
    assert (job.status, job.attempt, job.result) == (JobStatus.completed, 2, "attempt 2")
    assert [record.getMessage() for record in caplog.records] == [f"job {job.job_id}: work.do a: attempt 2: completed"]
    results = {key.rpartition("/")[0] for key, record in store._kinds["kv/jobs/result/jobs"].items() if record.value}
    assert len(results) == 1


async def test_a_job_that_is_retried_while_its_worker_still_ends_it_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    store, failed = MemoryStore(), anyio.Event()

    async def do(_: Any) -> str:
        if len(work.calls) == 1:
            raise BackendError("no")
        return "done"

    async def slow(self: job_store.JobStore, ended_job: Any) -> None:
        failed.set()
        await anyio.sleep(0.1)
        await expire_parts(self, ended_job)

    expire_parts = job_store.JobStore._expire_parts
    monkeypatch.setattr(job_store.JobStore, "_expire_parts", slow)
    work = WorkFake(do)
    async with workers(store, work, 2) as (first, second):
        created = await first.jobs.create_job("work", "do", {"name": "a"})
        await failed.wait()
        await second.jobs.retry_job(created.job_id)
        job = await until(second.jobs, created.job_id, lambda job: job.status is JobStatus.completed)
    assert job.result == "done"


@pytest.mark.parametrize("how", ["message", "result", "worker", "record"])
async def test_a_job_that_cannot_be_kept_does_not_disturb_the_others(
    how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, may_go_on = MemoryStore(), anyio.Event()

    async def do(arguments: Any) -> str:
        if arguments["name"] == "other":
            await may_go_on.wait()
        elif how == "message":
            raise BackendError("odd \ud800")
        elif how == "result":
            return "odd \ud800"
        elif how == "worker":
            this_job().save = fails  # type: ignore[attr-defined]
        return "fine"

    async def fails() -> None:
        raise RuntimeError("a fault of the worker")

    async with worker(store, WorkFake(do)) as at:
        other = await at.jobs.create_job("work", "do", {"name": "other"})
        await until(at.jobs, other.job_id, lambda job: job.status is JobStatus.running)
        if how == "record":
            job_id = at.jobs._store.new_id()
            await store.put("kv/jobs/jobs/jobs", job_id, "{}")
            await store.put("kv/jobs/open/jobs", f"{1:013d}-x", f'"{job_id}"')
            with anyio.fail_after(5):
                while "a job cannot be taken" not in caplog.text:
                    await anyio.sleep(0.01)
            assert [job.job_id for job in (await at.jobs.list_jobs()).data] == [other.job_id]
            with pytest.raises(InternalError, match="does not fit its type"):
                await at.jobs.get_job(job_id)
            removed = await at.jobs.cancel_job(job_id)
            assert removed.error is not None
            assert removed.error.message.endswith("does not fit its type; it was removed")
            with pytest.raises(NotFoundError):
                await at.jobs.get_job(job_id)
        else:
            job = await ended(at.jobs, (await at.jobs.create_job("work", "do", {"name": "odd"})).job_id)
            assert job.status is JobStatus.failed
            assert job.error is not None
            message = {
                "message": (502, "odd ?"),
                "result": (500, "result: cannot be kept as JSON: "),
                "worker": (500, "the job cannot be run; the log says why"),
            }[how]
            assert (job.error.status, job.error.message[: len(message[1])]) == message
        may_go_on.set()
        assert (await ended(at.jobs, other.job_id)).result == "fine"
