"""The state of jobs, driven at random: workers that die, clocks that go on, a store that fails in the middle."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from llamastack.provider import ConflictError, Deps, StoreUnavailableError
from llamastack.provider.memory_store import MemoryStore
from llamastack.provider.store import Record
from llamastack_provider_jobs import job_store
from llamastack_provider_jobs.api import FINISHED, JobError, JobItem, JobItemStatus, JobStatus
from llamastack_provider_jobs.config import JobsConfig
from llamastack_provider_jobs.job_record import JobRecord
from llamastack_provider_jobs.job_store import Claim, JobStore

pytestmark = pytest.mark.anyio
T = TypeVar("T")
LEASE_S = 10.0
MOST_DEATHS = 2
ERROR = JobError(status=500, code="error", message="no")


def new_job(store: JobStore) -> JobRecord:
    return JobRecord(job_id=store.new_id(), api="work", method="do", identifier="x", created_at=store.now())


class FailingStore(MemoryStore):
    """Fails at the write of that number, before or after it took effect; every write after it fails, too."""

    writes_left = -1
    after = False

    async def _around(self, write: Callable[[], Awaitable[T]]) -> T:
        if self.writes_left < 0:
            return await write()
        if self.writes_left == 0:
            if self.after:
                self.after = False
                await write()
            raise StoreUnavailableError("the disk is full")
        self.writes_left -= 1
        return await write()

    async def put(self, *args: Any, **kwargs: Any) -> Record:
        return await self._around(lambda: MemoryStore.put(self, *args, **kwargs))

    async def swap(self, *args: Any, **kwargs: Any) -> Record | None:
        return await self._around(lambda: MemoryStore.swap(self, *args, **kwargs))

    async def delete(self, kind: str, key: str) -> bool:
        return await self._around(lambda: MemoryStore.delete(self, kind, key))


class Jobs(RuleBasedStateMachine):
    """Claims may be stale: a worker that has lost its job goes on as if it had it."""

    jobs = Bundle("jobs")
    claims = Bundle("claims")

    @initialize()
    def begin(self) -> None:
        # Jobs that are due at the same time are in the order of these parts of their keys.
        numbers = itertools.count()
        self.patched = pytest.MonkeyPatch()
        self.patched.setattr(job_store.secrets, "token_hex", lambda _: f"{next(numbers):012d}")
        self.loop = asyncio.new_event_loop()
        self.clock = 1_000_000.0
        self.kv = FailingStore()
        config = JobsConfig(lease_s=LEASE_S, max_worker_deaths=MOST_DEATHS, kept_s=10**9)
        self.store = JobStore(config, Deps(provider_id="jobs", api="jobs", store=self.kv), lambda: self.clock)
        self.finished: dict[str, JobRecord] = {}
        self.holder: dict[str, tuple[int, float]] = {}
        self.workers = self.created = 0

    def now(self, call: Coroutine[Any, Any, T]) -> T:
        """What the call gives."""
        return self.loop.run_until_complete(call)

    def run(self, call: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T | None:
        """None also when the store failed, as in a worker that died in the middle."""

        async def made() -> T | None:
            try:
                return await call(*args, **kwargs)
            except StoreUnavailableError:
                return None

        try:
            return self.now(made())
        finally:
            self.kv.writes_left = -1

    def job(self, job_id: str) -> JobRecord:
        found = self.now(self.store.jobs.get(job_id))
        assert found is not None
        return found

    @rule(writes=st.integers(0, 6), after=st.booleans())
    def next_call_fails(self, writes: int, after: bool) -> None:
        self.kv.writes_left, self.kv.after = writes, after

    @rule(seconds=st.sampled_from([0.0, 1.0, 4.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock += seconds

    @precondition(lambda self: self.created < 3)
    @rule(target=jobs)
    def create(self) -> Any:
        self.clock += 0.001
        self.created += 1
        made = self.run(self.store.create, new_job(self.store), {"name": "x"})
        return multiple() if made is None else made.job_id

    @rule(target=claims)
    def claim_when_due(self) -> Any:
        self.clock += LEASE_S + 1
        return self.claim()

    @rule(target=claims)
    def claim(self) -> Any:
        self.workers += 1
        before = {entry.key: entry.value for entry in self.now(self.store.jobs.scan("", "", 1000))}
        claim = self.run(self.store.claim, f"worker {self.workers}")
        if claim is None:
            return multiple()
        job, was = claim.value, before[claim.key]
        assert was.due_at() <= self.clock
        assert not was.is_cancelling
        assert (job.attempt, job.status) == (was.attempt + 1, JobStatus.running)
        assert job.deaths == was.deaths + (was.status is JobStatus.running)
        assert job.deaths < MOST_DEATHS
        holder, until = self.holder.get(job.job_id, (0, 0.0))
        assert until <= self.clock, f"worker {holder} has it"
        assert self.job(job.job_id) == job
        self.holder[job.job_id] = (self.workers, self.clock + LEASE_S)
        return claim

    @rule(claim=claims, done=st.floats(0, 100))
    def renew(self, claim: Claim, done: float) -> None:
        progress = claim.value.progress.model_copy(update={"done": done})
        if self.run(self.store.renew, claim, progress=progress) is not None:
            holder, until = self.holder[claim.value.job_id]
            assert claim.value.worker == f"worker {holder}"
            self.holder[claim.value.job_id] = (holder, max(until, self.clock + LEASE_S))
            assert self.job(claim.value.job_id).progress.done == done

    @rule(claim=claims, failed=st.booleans())
    def write_items(self, claim: Claim, failed: bool) -> None:
        job_id = claim.value.job_id
        before = self.now(self.store.all_blocks(job_id))
        status = JobItemStatus.failed if failed else JobItemStatus.done
        items = [JobItem(place=0, name="a", status=status)]
        written = self.run(self.store.write_block, claim, 0, None, items)
        if not self.is_mine(claim) and before:
            assert written is None
            assert self.now(self.store.all_blocks(job_id)) == before

    def is_mine(self, claim: Claim) -> bool:
        return self.now(self.store.held(claim)) is not None

    @rule(claim=consumes(claims), how=st.sampled_from(["completed", "failed", "again", "back"]))
    def end(self, claim: Claim, how: str) -> None:
        job, mine = claim.value, self.is_mine(claim)
        before = self.job(job.job_id)
        if how == "again":
            self.run(self.store.queue_again, claim, in_s=2, attempt=job.attempt, changes={"error": ERROR})
        elif how == "back":
            self.run(self.store.queue_again, claim, attempt=job.attempt - 1, changes={})
        else:
            key = self.run(self.store.write_result, claim, claim.value.worker)
            self.run(self.store.end_held, claim, JobStatus(how), result_key=key)
        if not mine:
            assert self.job(job.job_id) == before
        elif self.job(job.job_id) != before:
            self.holder.pop(job.job_id)

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        was = self.job(job_id)
        cancelled = self.run(self.store.cancel, job_id)
        if cancelled is not None and was.status is JobStatus.running and was.due_at() > self.clock:
            assert (cancelled.status, cancelled.is_cancelling) == (JobStatus.running, True)
        elif cancelled is not None and was.status not in FINISHED:
            assert cancelled.status is JobStatus.cancelled
        if cancelled is not None and cancelled.status is JobStatus.cancelled:
            self.holder.pop(job_id, None)

    @rule(job_id=jobs)
    def retry(self, job_id: str) -> None:
        was = self.job(job_id).status
        try:
            self.run(self.store.retry, job_id)
        except ConflictError:
            assert was is not JobStatus.failed
        else:
            assert was is JobStatus.failed
            if self.job(job_id).status is JobStatus.queued:
                self.finished.pop(job_id, None)
                assert all(
                    item.status is not JobItemStatus.failed for item in self.now(self.store.items_from(job_id, 0, 9))
                )

    @invariant()
    def what_has_ended_stays_so(self) -> None:
        for entry in self.now(self.store.jobs.scan("", "", 1000)):
            job = entry.value
            if job.status is JobStatus.completed and job.result_key:
                # Of the worker that completed it, whatever others write.
                assert (
                    self.now(self.store.results.read(job.result_key))
                    == job.result_key.partition("-")[2].partition("-")[2]
                )
            if job.job_id in self.finished:
                assert job == self.finished[job.job_id]
            elif job.status in FINISHED:
                self.finished[job.job_id] = job
            if job.status in (JobStatus.queued, JobStatus.running, JobStatus.failed):
                assert self.now(self.store.arguments.read(job.job_id)) == {"name": "x"}

    def teardown(self) -> None:
        """End it."""
        if hasattr(self, "loop"):
            try:
                self.every_job_ends()
            finally:
                self.loop.close()
                self.patched.undo()

    def every_job_ends(self) -> None:
        """Every job ends when workers go on, and what belongs to no job any more is removed."""
        self.kv.writes_left = -1
        for _ in range(40):
            self.clock += 700
            while (claim := self.run(self.store.claim, "last")) is not None:
                self.run(self.store.end_held, claim, JobStatus.completed)
        for entry in self.now(self.store.jobs.scan("", "", 1000)):
            assert entry.value.status in FINISHED
            kept = self.now(self.store.arguments.read(entry.value.job_id))
            assert kept == ({"name": "x"} if entry.value.status is JobStatus.failed else None)
            assert entry.expires_at is not None
        assert self.now(self.store._open.scan()) == []
        jobs = {entry.key for entry in self.now(self.store.jobs.scan("", "", 1000))}
        for kind in ("arguments", "result"):
            keys = self.kv._kinds.get(f"kv/jobs/{kind}/jobs", {})
            assert {key.partition("/")[0] for key, record in keys.items() if record.value} <= jobs


TestJobs = Jobs.TestCase
TestJobs.settings = settings(
    max_examples=120,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.mark.parametrize("after", [False, True], ids=["before the write", "after the write"])
@pytest.mark.parametrize("status", [JobStatus.completed, JobStatus.failed, JobStatus.cancelled])
@pytest.mark.parametrize("cut_off", ["create", "end"])
async def test_nothing_is_left_of_a_call_that_is_cut_off_at_any_write(
    cut_off: str, status: JobStatus, after: bool
) -> None:
    for writes in range(12):
        kv, clock = FailingStore(), [1_000_000.0]
        deps = Deps(provider_id="jobs", api="jobs", store=kv)
        store = JobStore(JobsConfig(kept_s=10**9), deps, lambda at=clock: at[0])  # type: ignore[misc]
        with suppress(StoreUnavailableError):
            if cut_off == "create":
                kv.writes_left, kv.after = writes, after
            await store.create(new_job(store), {"name": "x" * 4_500_000})
            claim = await store.claim("first")
            assert claim is not None
            await store.write_block(claim, 0, None, [JobItem(place=0, name="a")])
            if cut_off == "end":
                kv.writes_left, kv.after = writes, after
            key = await store.write_result(claim, "x" * 4_500_000)
            await store.end_held(claim, status, result_key=key)
        kv.writes_left = -1
        for _ in range(4):
            clock[0] += 700
            while (claim := await store.claim("second")) is not None:
                await store.end_held(claim, status)
        records = [record for records in kv._kinds.values() for record in records.values() if record.value]
        kept = {record.kind.split("/")[2] for record in records}
        assert not kept or "jobs" in kept
        assert ("arguments" in kept) == ("jobs" in kept and status is JobStatus.failed)
        assert "open" not in kept
        assert all(record.expires_at is not None for record in records)
