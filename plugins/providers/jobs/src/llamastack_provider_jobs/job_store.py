"""Jobs in the stack's store, and every change of their state.

A job is one record, changed by compare-and-set. Beside it, an entry under `open` says when the job is due, so that
workers need not read finished jobs. The entry is made before the job, and removed last after the job has ended. It is
a hint: the record decides. A worker that finds the entry of a finished job cleans up what another worker left.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping

from pydantic import JsonValue

from llamastack.provider import ConflictError, Deps, Entry, NotFoundError
from llamastack_provider_jobs.api import FINISHED, Job, JobError, JobItem, JobItemStatus, JobStatus
from llamastack_provider_jobs.config import JobsConfig
from llamastack_provider_jobs.long_values import LongValues

BLOCK = 100
"""Items that are kept together."""
_LAST_MS = 10**13
_ORPHAN_S = 600.0
_PAGE = 100
_LONGEST_IDENTIFIER = 512
# What belongs to a job is kept a little longer than the job itself, so that no reader finds only a part of it.
_MARGIN_S = 3600.0
_FOR_EVER_S = 100 * 365 * 86_400.0


class JobRecord(Job):
    """A job as it is kept.

    worker: the one that runs it. lease_until: until then no other worker may.
    checkpoint: what the method keeps for its next attempt.
    """

    worker: str | None = None
    lease_until: float | None = None
    checkpoint: JsonValue = None

    def public(self, result: object = None) -> Job:
        """The job without what only workers need."""
        fields = self.model_dump(include=set(Job.model_fields))
        return Job.model_validate({**fields, "result": result})

    def changed(self, **changes: object) -> JobRecord:
        """A copy with other values."""
        return self.model_copy(update=changes)

    def due_at(self) -> float:
        """When a worker may take it."""
        return (self.lease_until if self.status is JobStatus.running else self.next_attempt_at) or self.created_at


Claim = Entry[JobRecord]
Block = Entry[list[JobItem]]


class JobStore:
    """now: seconds since 1970, by the clock that all workers share."""

    def __init__(self, config: JobsConfig, deps: Deps, now: Callable[[], float] = time.time) -> None:
        self._config = config
        self.now = now
        self.jobs = deps.kv("jobs", JobRecord)
        self.arguments = LongValues("arguments", deps, config.max_bytes)
        self.results = LongValues("result", deps, config.max_bytes)
        self.items = deps.kv("items", list[JobItem])
        self._open = deps.kv("open", float)

    # ---- for callers -------------------------------------------------------------------------------------------------

    async def create(self, api: str, method: str, identifier: str, arguments: Mapping[str, object]) -> JobRecord:
        """Queue a job. Raises RequestTooLargeError for arguments that are too large."""
        now = self.now()
        job_id = f"job-{_LAST_MS - int(now * 1000):011x}{secrets.token_hex(5)}"  # the newest one comes first
        job = JobRecord(
            job_id=job_id, api=api, method=method, identifier=identifier[:_LONGEST_IDENTIFIER], created_at=now
        )
        await self._open.set(_open_key(job), now)
        try:
            await self.arguments.write(job_id, arguments)
        except BaseException:
            await self._open.delete(_open_key(job))
            raise
        await self.jobs.add(job_id, job)
        return job

    async def entry(self, job_id: str) -> Claim:
        """Raises NotFoundError."""
        found = await self.jobs.entry(job_id)
        if found is None:
            raise NotFoundError(f"there is no job '{job_id}'", param="job_id")
        return found

    async def cancel(self, job_id: str) -> JobRecord:
        """Cancel it now, or have its worker do so. A job that has ended stays as it is."""
        while True:
            entry = await self.entry(job_id)
            job = entry.value
            if job.status in FINISHED:
                return job
            if job.status is JobStatus.running and job.due_at() > self.now():
                job = job.changed(is_cancelling=True)
                if await self.jobs.swap(entry, job) is not None:
                    return job
            elif (ended := await self.end(entry, JobStatus.cancelled)) is not None:
                return ended.value

    async def retry(self, job_id: str) -> JobRecord:
        """Queue a failed job again. Raises ConflictError for another one."""
        entry = await self.entry(job_id)
        job = entry.value
        if job.status is not JobStatus.failed:
            raise ConflictError(f"job '{job_id}' is {job.status}; only a failed job can be retried", param="job_id")
        async for block in self._blocks(job_id):
            pending = [_retried(item) for item in block.value]
            await self.items.swap(block, pending, expires_in_s=_FOR_EVER_S)
        await self.arguments.expire(job_id, _FOR_EVER_S)
        await self._open.set(_open_key(job), self.now())
        again = job.changed(
            status=JobStatus.queued, attempt=0, error=None, finished_at=None, next_attempt_at=self.now()
        )
        if await self.jobs.swap(entry, again, expires_in_s=_FOR_EVER_S) is None:
            raise ConflictError(f"job '{job_id}' was changed at the same time; look at it and try again")
        # A worker that still found the failed job may have removed the entry in between.
        await self._open.set(_open_key(job), self.now())
        return again

    # ---- for workers -------------------------------------------------------------------------------------------------

    async def claim(self, worker: str) -> Claim | None:
        """Take a job that is due, the oldest first; None if there is none."""
        after = ""
        while page := await self._open.scan(after=after, limit=_PAGE):
            for hint in page:
                if hint.value <= self.now() and (taken := await self._take(hint, worker)) is not None:
                    return taken
            after = page[-1].key
        return None

    async def _take(self, hint: Entry[float], worker: str) -> Claim | None:
        job_id = hint.key.partition("-")[2]
        entry = await self.jobs.entry(job_id)
        now = self.now()
        if entry is None:
            if now - hint.value > _ORPHAN_S:  # its creation was cut off, or it was finished and is forgotten
                await self.arguments.delete(job_id)
                await self._open.swap(hint, None)
            return None
        job = entry.value
        if job.status in FINISHED:
            await self._expire_parts(job)
            await self._open.swap(hint, None)
            return None
        if job.due_at() > now:
            await self._open.swap(hint, job.due_at())
            return None
        if job.is_cancelling:
            await self.end(entry, JobStatus.cancelled)
            return None
        if job.attempt >= self._config.attempts:
            lost = JobError(
                status=500, code="worker_lost", message=f"the worker died in each of {job.attempt} attempts"
            )
            await self.end(entry, JobStatus.failed, error=lost)
            return None
        taken = job.changed(
            status=JobStatus.running,
            attempt=job.attempt + 1,
            started_at=now,
            next_attempt_at=None,
            worker=worker,
            lease_until=now + self._config.lease_s,
        )
        claim = await self.jobs.swap(entry, taken)
        if claim is not None:
            await self._open.swap(hint, taken.due_at())
        return claim

    async def renew(self, claim: Claim, **changes: object) -> Claim | None:
        """Keep the job for another lease, with these changes; None: it is no longer this worker's."""
        while True:
            entry = await self.held(claim)
            if entry is None:
                return None
            job = entry.value.changed(lease_until=self.now() + self._config.lease_s, **changes)
            if (renewed := await self.jobs.swap(entry, job)) is not None:
                return renewed

    async def held(self, claim: Claim) -> Claim | None:
        """The job as it is now; None: it is no longer this worker's."""
        entry = await self.jobs.entry(claim.value.job_id)
        then = claim.value
        if entry is None or entry.value.status is not JobStatus.running:
            return None
        return entry if (entry.value.worker, entry.value.attempt) == (then.worker, then.attempt) else None

    async def queue_again(self, claim: Claim, *, in_s: float = 0, attempt: int, changes: Mapping[str, object]) -> None:
        """Give the job up; a worker takes it after that time. attempt: how many of its attempts count."""
        while (entry := await self.held(claim)) is not None:
            due_at = self.now() + in_s
            job = entry.value.changed(
                status=JobStatus.queued,
                attempt=attempt,
                next_attempt_at=due_at,
                worker=None,
                lease_until=None,
                **changes,
            )
            if await self.jobs.swap(entry, job) is not None:
                await self._open.set(_open_key(job), due_at)
                return

    async def end_held(self, claim: Claim, status: JobStatus, **changes: object) -> None:
        """The worker has ended the job; nothing is done if it is no longer this worker's."""
        while (entry := await self.held(claim)) is not None:
            if await self.end(entry, status, **changes) is not None:
                return

    async def end(self, entry: Claim, status: JobStatus, **changes: object) -> Claim | None:
        """The job has ended; None: somebody has changed it since, and nothing was done."""
        values: dict[str, object] = {
            "status": status,
            "finished_at": self.now(),
            "next_attempt_at": None,
            "worker": None,
            "lease_until": None,
            "is_cancelling": False,
        }
        job = entry.value.changed(**values, **changes)
        ended = await self.jobs.swap(entry, job, expires_in_s=self._config.kept_s)
        if ended is not None:
            await self._expire_parts(job)
            await self._open.delete(_open_key(job))
        return ended

    async def _expire_parts(self, job: JobRecord) -> None:
        kept_s = self._config.kept_s + _MARGIN_S
        if job.status is JobStatus.failed:  # another attempt needs them
            await self.arguments.expire(job.job_id, kept_s)
        else:
            await self.arguments.delete(job.job_id)
        if job.status is JobStatus.completed:
            await self.results.expire(job.job_id, kept_s)
        else:
            await self.results.delete(job.job_id)
        async for block in self._blocks(job.job_id):
            await self.items.swap(block, block.value, expires_in_s=kept_s)

    async def _blocks(self, job_id: str) -> AsyncIterator[Block]:
        after = ""
        while page := await self.items.scan(prefix=f"{job_id}/", after=after, limit=_PAGE):
            for block in page:
                yield block
            after = page[-1].key

    async def all_blocks(self, job_id: str) -> list[Block]:
        """The items of a job, `BLOCK` of them in each entry but the last."""
        return [block async for block in self._blocks(job_id)]

    async def write_block(self, claim: Claim, place: int, known: Block | None, items: list[JobItem]) -> Block | None:
        """Keep a block of items. known: as this worker knows it. None: the job is no longer this worker's."""
        key = item_key(claim.value.job_id, place)
        while True:
            if known is not None:
                written = await self.items.swap(known, items)
            else:
                written = await self.items.entry(key) if await self.items.add(key, items) else None
            if written is not None or await self.held(claim) is None:
                return written
            known = await self.items.entry(key)  # a worker that had lost the job has changed it

    async def items_from(self, job_id: str, first: int, wanted: int) -> list[JobItem]:
        """At most `wanted` items from place `first` on."""
        keys = [item_key(job_id, block) for block in range(first // BLOCK, (first + wanted) // BLOCK + 1)]
        found = [await self.items.get(key) or [] for key in keys]
        return [item for block in found for item in block if item.place >= first][:wanted]


def item_key(job_id: str, block: int) -> str:
    """The key of a block of items."""
    return f"{job_id}/{block:08d}"


def _retried(item: JobItem) -> JobItem:
    if item.status is not JobItemStatus.failed:
        return item
    return item.model_copy(update={"status": JobItemStatus.pending, "message": ""})


def _open_key(job: JobRecord) -> str:
    return f"{int(job.created_at * 1000):013d}-{job.job_id}"
