"""Jobs in the stack's store, and every change of their state.

A job is one record, changed by compare-and-set. Beside it, an entry under `open` says when the job is due; these
entries are in the order of time, so that a worker reads only what is due. A change writes the new entry, then the
record, which names it, then removes the old entry. So a job that has not ended has its entry, whenever a process dies.
A worker that finds an entry that is left over removes it, with what is left of its job.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping

from pydantic import JsonValue

from llamastack.provider import ConflictError, Deps, Entry, InternalError, NotFoundError
from llamastack_provider_jobs.api import FINISHED, JobError, JobItem, JobItemStatus, JobStatus
from llamastack_provider_jobs.config import JobsConfig
from llamastack_provider_jobs.job_record import JobRecord
from llamastack_provider_jobs.long_values import LongValues

_LOGGER = logging.getLogger("llamastack.jobs")
BLOCK = 100
"""Items that are kept together."""
_LAST_MS = 10**13
_ORPHAN_S = 600.0
_PAGE = 100
# What belongs to a job is kept a little longer than the job itself, so that no reader finds only a part of it.
_MARGIN_S = 3600.0
_FOR_EVER_S = 100 * 365 * 86_400.0


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
        self._open = deps.kv("open", str)
        self._unreadable: set[str] = set()

    # ---- for callers -------------------------------------------------------------------------------------------------

    async def create(self, new: JobRecord, arguments: Mapping[str, object]) -> JobRecord:
        """Queue a job. Raises RequestTooLargeError for arguments that are too large."""
        new = new.changed(due_key=_due_key(new))
        key = new.due_key or ""
        await self._open.set(key, new.job_id)
        try:
            await self.arguments.write(new.job_id, arguments)
        except BaseException:
            await self._open.delete(key)
            raise
        await self.jobs.add(new.job_id, new)
        await self._restore_entry(new)
        return new

    def new_id(self) -> str:
        """The newest id comes first in the order of keys."""
        return f"job-{_LAST_MS - int(self.now() * 1000):011x}{secrets.token_hex(5)}"

    async def entry(self, job_id: str) -> Claim:
        """Raises NotFoundError."""
        found = await self.jobs.entry(job_id)
        if found is None:
            raise NotFoundError(f"there is no job '{job_id}'", param="job_id")
        return found

    async def arguments_of(self, job_id: str) -> dict[str, JsonValue]:
        """What the call is made with. Raises InternalError if it is gone."""
        found = await self.arguments.read(job_id)
        if not isinstance(found, dict):
            raise InternalError(f"the arguments of job '{job_id}' are gone; create it again")
        return found

    async def cancel(self, job_id: str) -> JobRecord:
        """Cancel it now, or have its worker do so. A job that has ended stays as it is.

        A job whose record cannot be read is removed.
        """
        while True:
            try:
                entry = await self.entry(job_id)
            except InternalError as error:
                return await self._remove_unreadable(job_id, error)
            job = entry.value
            if job.status in FINISHED:
                return job
            if job.status is JobStatus.running and job.due_at() > self.now():
                job = job.changed(is_cancelling=True)
                if await self.jobs.swap(entry, job) is not None:
                    return job
            elif (ended := await self.end(entry, JobStatus.cancelled)) is not None:
                return ended.value

    async def _remove_unreadable(self, job_id: str, error: InternalError) -> JobRecord:
        await self.jobs.delete(job_id)
        await self.arguments.delete(job_id)
        while keys := await self.items.keys(f"{job_id}/"):
            for key in keys:
                await self.items.delete(key)
        removed = JobError(status=error.status, code=error.code, message=f"{error.message}; it was removed")
        now = self.now()
        return JobRecord(
            job_id=job_id,
            api="",
            method="",
            created_at=now,
            finished_at=now,
            status=JobStatus.cancelled,
            error=removed,
        )

    async def listed(self, after: str, limit: int) -> tuple[list[JobRecord], str | None]:
        """At most `limit` jobs, the newest first, and the key of the last one; None at the end.

        Those that cannot be read are left out, with a line in the log.
        """
        try:
            entries = await self.jobs.scan(after=after, limit=limit)
        except InternalError:
            keys = await self.jobs.keys(after=after, limit=limit)
            found = [job for key in keys if (job := await self._readable(key)) is not None]
            return found, keys[-1] if keys else None
        return [entry.value for entry in entries], entries[-1].key if entries else None

    async def _readable(self, job_id: str) -> JobRecord | None:
        try:
            return await self.jobs.get(job_id)
        except InternalError as error:
            _LOGGER.error("a job is left out: %s; cancel it to remove it", error.message)  # noqa: TRY400
            return None

    async def retry(self, job_id: str) -> JobRecord:
        """Queue a failed job again. Raises ConflictError for another one."""
        entry = await self.entry(job_id)
        job = entry.value
        if job.status is not JobStatus.failed:
            raise ConflictError(f"job '{job_id}' is {job.status}; only a failed job can be retried", param="job_id")
        async for block in self._blocks(job_id):
            await self.items.swap(block, [_retried(item) for item in block.value])
        again = job.changed(
            status=JobStatus.queued,
            attempt=0,
            deaths=0,
            failures=0,
            failing_since=None,
            best=0,
            error=None,
            finished_at=None,
            next_attempt_at=self.now(),
        )
        if (queued := await self._move(entry, again, expires_in_s=_FOR_EVER_S)) is None:
            raise ConflictError(f"job '{job_id}' was changed at the same time; look at it and try again")
        await self.arguments.expire(job_id, _FOR_EVER_S)
        async for block in self._blocks(job_id):
            await self.items.swap(block, block.value, expires_in_s=_FOR_EVER_S)
        return queued.value

    # ---- for workers -------------------------------------------------------------------------------------------------

    async def claim(self, worker: str) -> Claim | None:
        """Take a job that is due, the one that waits for the longest time first; None if there is none."""
        after = ""
        while page := await self._open.scan(after=after, limit=_PAGE):
            for due in page:
                if _due_time(due.key) > self.now():
                    return None
                if (taken := await self._try_to_take(due, worker)) is not None:
                    return taken
            after = page[-1].key
        return None

    async def _try_to_take(self, due: Entry[str], worker: str) -> Claim | None:
        try:
            return await self._take(due, worker)
        except InternalError as error:  # what is kept cannot be read here; that must not hold up the other jobs
            if due.key not in self._unreadable:
                self._unreadable.add(due.key)
                _LOGGER.error("a job cannot be taken: %s", error.message)  # noqa: TRY400 - that is all
            return None

    async def _take(self, due: Entry[str], worker: str) -> Claim | None:
        job_id, now = due.value, self.now()
        entry = await self.jobs.entry(job_id)
        is_old = now - _due_time(due.key) > _ORPHAN_S
        if entry is None:
            if is_old:  # its creation was cut off, or it has ended and is forgotten
                await self.arguments.delete(job_id)
                await self._open.delete(due.key)
            return None
        job = entry.value
        if job.due_key != due.key:
            if is_old:  # else the record may be about to name it, also that of a job that has ended and is retried
                if job.status in FINISHED:
                    await self._expire_parts(entry)
                await self._open.delete(due.key)
            return None
        if job.due_at() > now:
            await self._move(entry, job)  # its lease was renewed
            return None
        if job.is_cancelling:
            await self.end(entry, JobStatus.cancelled)
            return None
        deaths = job.deaths + (job.status is JobStatus.running)
        if deaths >= self._config.max_worker_deaths:
            message = f"its lease ended {deaths} times: its workers died, or stood still for longer than 'lease_s'"
            lost = JobError(status=500, code="worker_lost", message=message)
            await self.end(entry, JobStatus.failed, error=lost)
            return None
        taken = job.changed(
            status=JobStatus.running,
            attempt=job.attempt + 1,
            started_at=now,
            next_attempt_at=None,
            worker=worker,
            lease_until=now + self._config.lease_s,
            deaths=deaths,
        )
        return await self._move(entry, taken)

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

    async def queue_again(self, claim: Claim, *, in_s: float = 0, attempt: int, changes: Mapping[str, object]) -> bool:
        """Give the job up; a worker takes it after that time. False: it is no longer this worker's.

        attempt: how many of its attempts count.
        """
        while (entry := await self.held(claim)) is not None:
            if entry.value.is_cancelling:
                return await self.end_held(claim, JobStatus.cancelled, **changes)
            job = entry.value.changed(
                status=JobStatus.queued,
                attempt=attempt,
                next_attempt_at=self.now() + in_s,
                worker=None,
                lease_until=None,
                **changes,
            )
            if await self._move(entry, job) is not None:
                return True
        return False

    async def end_held(self, claim: Claim, status: JobStatus, **changes: object) -> bool:
        """The worker has ended the job. False: it is no longer this worker's, and nothing was done."""
        while (entry := await self.held(claim)) is not None:
            if await self.end(entry, status, **changes) is not None:
                return True
        return False

    async def end(self, entry: Claim, status: JobStatus, **changes: object) -> Claim | None:
        """The job has ended; None: somebody has changed it since, and nothing was done."""
        values: dict[str, object] = {
            "status": status,
            "finished_at": self.now(),
            "next_attempt_at": None,
            "worker": None,
            "lease_until": None,
            "is_cancelling": False,
            "due_key": None,
        }
        if status is not JobStatus.failed:  # no other attempt needs it
            changes = {**changes, "checkpoint": None}
        job = entry.value.changed(**values, **changes)
        ended = await self.jobs.swap(entry, job, expires_in_s=self._config.kept_s)
        if ended is not None:
            await self._expire_parts(ended)
            if entry.value.due_key is not None:
                await self._open.delete(entry.value.due_key)
        return ended

    async def write_result(self, claim: Claim, result: object) -> str:
        """Keep what the method replied. Returns the key for the job's record.

        Each attempt has its own: a worker that has lost the job cannot overwrite the result of another one.
        """
        key = f"{claim.value.job_id}/{claim.value.attempt}-{claim.value.worker}"
        await self.results.write(key, result, expires_in_s=self._config.kept_s + _MARGIN_S)
        return key

    async def _expire_parts(self, ended: Claim) -> None:
        job, kept_s = ended.value, self._config.kept_s + _MARGIN_S
        now = await self.jobs.entry(job.job_id)
        if now is None or now.version != ended.version:  # queued again
            return
        if job.status is JobStatus.failed:  # another attempt needs them
            await self.arguments.expire(job.job_id, kept_s)
        else:
            await self.arguments.delete(job.job_id)
        async for block in self._blocks(job.job_id):
            await self.items.swap(block, block.value, expires_in_s=kept_s)

    async def _move(self, entry: Claim, job: JobRecord, *, expires_in_s: float | None = None) -> Claim | None:
        """Put the job in place of the entry, with another time when it is due; None: somebody has changed it since."""
        new, old = _due_key(job), entry.value.due_key
        await self._open.set(new, job.job_id)
        moved = await self.jobs.swap(entry, job.changed(due_key=new), expires_in_s=expires_in_s)
        left = old if moved is not None else new
        if left is not None:
            await self._open.delete(left)
        if moved is not None:
            await self._restore_entry(moved.value)
        return moved

    async def _restore_entry(self, job: JobRecord) -> None:
        """If this process stood still before the record named its entry, another worker may have removed that."""
        key = job.due_key or ""
        if self.now() - _due_time(key) > _ORPHAN_S / 2:
            await self._open.set(key, job.job_id)

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


def _due_key(job: JobRecord) -> str:
    """When the job is due, in milliseconds, and a part that makes the key its own."""
    return f"{int(job.due_at() * 1000):013d}-{secrets.token_hex(6)}"


def _due_time(key: str) -> float:
    """Seconds since 1970; 0 for a key that is none."""
    return int(key[:13]) / 1000 if key[:13].isdecimal() else 0.0
