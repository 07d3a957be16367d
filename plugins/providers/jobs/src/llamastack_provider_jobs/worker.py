"""Runs jobs in one worker process."""

from __future__ import annotations

import logging
import os
import secrets
from contextlib import AbstractContextManager

import anyio

from llamastack.provider import (
    AuthenticationError,
    Deps,
    InternalError,
    InvalidRequestError,
    LlamaStackError,
    RequestTooLargeError,
    StoreUnavailableError,
)
from llamastack.provider.backoff import pause_s
from llamastack.provider.context import Principal, use_context
from llamastack.provider.jobs import use_job
from llamastack_provider_jobs.api import JobError, JobStatus
from llamastack_provider_jobs.config import JobsConfig
from llamastack_provider_jobs.job_record import JobRecord
from llamastack_provider_jobs.job_store import Claim, JobStore
from llamastack_provider_jobs.named_calls import find_method
from llamastack_provider_jobs.running_job import RunningJob, storable_text

_LOGGER = logging.getLogger("llamastack.jobs")
_POLL_S, _LONGEST_POLL_S = 1.0, 30.0
_WATCH_S = 0.5
_GIVE_BACK_S = 5.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 300.0
_LONGEST_ASKED_S = 3600.0
_MOST_TRIES_TO_KEEP = 10


class Worker:
    """Takes jobs that are due and runs them, until `stop`."""

    def __init__(self, config: JobsConfig, deps: Deps, store: JobStore) -> None:
        self._config, self._deps, self._store = config, deps, store
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._free = anyio.Semaphore(config.concurrency)
        self._scope = anyio.CancelScope()
        self._ended: anyio.Event | None = None
        self._wake = anyio.Event()

    def start(self) -> None:
        """Begin to take jobs."""
        self._ended = anyio.Event()
        self._deps.task_group.start_soon(self._run, self._ended)

    async def stop(self) -> None:
        """Interrupt the running jobs and give them back, so that another worker can take them at once."""
        self._scope.cancel()
        if self._ended is not None:
            await self._ended.wait()

    def wake(self) -> None:
        """There is a new job."""
        self._wake.set()

    async def _run(self, ended: anyio.Event) -> None:
        try:
            with self._scope:
                async with anyio.create_task_group() as running:
                    while True:
                        await self._free.acquire()
                        running.start_soon(self._run_job, await self._next())
        finally:
            ended.set()

    async def _next(self) -> Claim:
        failures = 0
        while True:
            self._wake = anyio.Event()
            try:
                claim = await self._store.claim(self._name)
            except LlamaStackError as error:
                failures += 1
                _LOGGER.warning("no job can be taken: %s", error.message)
            except Exception:
                failures += 1
                _LOGGER.exception("no job can be taken")
            else:
                failures = 0
                if claim is not None:
                    return claim
            with anyio.move_on_after(pause_s(failures, _POLL_S, _LONGEST_POLL_S) or _POLL_S):
                await self._wake.wait()

    async def _run_job(self, claim: Claim) -> None:
        running = RunningJob(claim, self._store)
        try:
            await self._run_watched(claim, running)
        except Exception:
            # A fault of one job must not reach the others.
            _LOGGER.exception("job %s cannot be run", running.id)
            error = JobError(status=500, code=InternalError.code, message="the job cannot be run; the log says why")
            try:
                await self._store.end_held(claim, JobStatus.failed, error=error)
            except LlamaStackError as store_error:
                _LOGGER.warning("job %s is run again when its lease ends: %s", running.id, store_error.message)
        finally:
            self._free.release()

    async def _run_watched(self, claim: Claim, running: RunningJob) -> None:
        ending = anyio.Event()
        is_over = False
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, claim, running, ending, tasks.cancel_scope)
                outcome = await self._outcome(claim, running)
                ending.set()
                await self._keep_outcome(claim, running, outcome)
                is_over = True
                tasks.cancel_scope.cancel()
        except Exception:
            is_over = True
            raise
        finally:
            if not is_over:
                with anyio.move_on_after(_GIVE_BACK_S, shield=True):
                    await self._interrupted(claim, running)

    async def _watch(self, claim: Claim, running: RunningJob, ending: anyio.Event, scope: anyio.CancelScope) -> None:
        """Keep the lease, and what the method reports. End the run when the job is cancelled or another worker's."""
        renewed_at, kept = anyio.current_time(), running.kept
        while True:
            await anyio.sleep(_WATCH_S)
            began = anyio.current_time()
            try:
                mine = await running.save()
                if running.kept != kept or began - renewed_at > self._config.lease_s / 3:
                    now_kept = running.kept
                    entry = await self._store.renew(claim, **now_kept)
                    renewed_at, kept = began, now_kept
                else:
                    entry = await self._store.held(claim)
            except StoreUnavailableError as error:
                if anyio.current_time() - renewed_at > self._config.lease_s - 2 * _WATCH_S:
                    _LOGGER.warning("job %s is interrupted: its lease cannot be renewed: %s", running.id, error.message)
                    break
                await anyio.sleep(self._config.lease_s / 10)  # each call may wait long for a locked store
                continue
            if entry is None and ending.is_set():
                return  # it has just been ended here
            if entry is None or entry.value.is_cancelling or not mine:
                break
        scope.cancel()

    async def _outcome(self, claim: Claim, running: RunningJob) -> object:
        """The reply as JSON, or the error."""
        job = claim.value
        try:
            await running.load()
            call = find_method(self._deps, job.api, job.method)
            arguments = await self._store.arguments_of(job.job_id)
            with _caller(job), use_job(job.api, job.method, running):
                reply = await call(**arguments)
            return call.definition.result.dump_python(reply, mode="json")
        except LlamaStackError as error:
            return error
        except Exception as error:
            _LOGGER.exception("job %s failed", job.job_id)
            return InternalError(f"{job.api}.{job.method}: {type(error).__name__}; the log says why")

    async def _keep_outcome(self, claim: Claim, running: RunningJob, outcome: object) -> None:
        failures = 0
        while True:
            try:
                await running.save()
                status = await self._end(claim, running, outcome)
            except StoreUnavailableError as error:
                # If nothing can be kept, `_watch` ends this when the lease does, and the job is run again.
                failures += 1
                _LOGGER.warning("job %s has ended, but that cannot be kept: %s", running.id, error.message)
                if failures == _MOST_TRIES_TO_KEEP:  # perhaps only the result is too much for the disk
                    outcome = InternalError(f"what it gave cannot be kept: {error.message}")
                await anyio.sleep(pause_s(failures, _WATCH_S, _POLL_S))
            except RequestTooLargeError as error:  # the result
                outcome = error
            except InvalidRequestError as error:  # the result
                outcome = InternalError(error.message)
            else:
                if status is not None:
                    job = claim.value
                    call = f"{job.api}.{job.method} {job.identifier}".rstrip()
                    _LOGGER.info("job %s: %s: attempt %d: %s", job.job_id, call, job.attempt, status)
                return

    async def _end(self, claim: Claim, running: RunningJob, outcome: object) -> str | None:
        """Keep how the attempt ended. Returns it in words; None if the job is no longer this worker's."""
        kept, job = running.kept, claim.value
        if isinstance(outcome, LlamaStackError):
            error = JobError(status=outcome.status, code=outcome.code, message=_explained(outcome))
            if outcome.is_transient and (again := self._again(job, running, outcome)) is not None:
                in_s, changes = again
                changes |= {**kept, "error": error}
                queued = await self._store.queue_again(claim, in_s=in_s, attempt=job.attempt, changes=changes)
                return f"queued again in {in_s:.0f} s: {error.message}" if queued else None
        elif running.progress.failed:
            at = running.progress
            of_all = "" if at.total is None else f" of {at.total:.0f}"
            message = f"{at.failed}{of_all} {at.unit or 'items'} failed; the items of the job say why"
            error = JobError(status=422, code="items_failed", message=message)
        else:
            key = await self._store.write_result(claim, outcome)
            if await self._store.end_held(claim, JobStatus.completed, error=None, result_key=key, **kept):
                return JobStatus.completed
            await self._store.results.delete(key)
            return None
        ended = await self._store.end_held(claim, JobStatus.failed, error=error, **kept)
        return f"failed: {error.message}" if ended else None

    def _again(
        self, job: JobRecord, running: RunningJob, error: LlamaStackError
    ) -> tuple[float, dict[str, object]] | None:
        """In how many seconds to try again, and what to keep; None: no more."""
        now = self._store.now()
        failures, since = job.failures + 1, job.failing_since
        if since is None or running.progress.done > job.best:  # it gets on
            failures, since = 1, now
        if now - since >= self._config.retry_for_s:
            return None
        asked_s = min(error.retry_after or 0, _LONGEST_ASKED_S)
        in_s = max(pause_s(failures, _FIRST_PAUSE_S, _LONGEST_PAUSE_S), asked_s)
        return in_s, {"failures": failures, "failing_since": since, "best": max(job.best, running.progress.done)}

    async def _interrupted(self, claim: Claim, running: RunningJob) -> None:
        try:
            await running.save()
            entry = await self._store.held(claim)
            if entry is not None and entry.value.is_cancelling:
                await self._store.end_held(claim, JobStatus.cancelled, **running.kept)
            else:
                await self._store.queue_again(claim, attempt=claim.value.attempt - 1, changes=running.kept)
        except StoreUnavailableError as error:
            _LOGGER.warning("job %s is run again when its lease ends: %s", running.id, error.message)


def _caller(job: JobRecord) -> AbstractContextManager[object]:
    """The context of the job's call. It is made for whoever created the job."""
    request_id = f"{job.job_id}-{job.attempt}"
    if job.by_stack:
        return use_context(request_id=request_id)  # a worker runs as the stack itself
    made_by = None if job.principal is None else Principal(job.principal.id, job.principal.attributes)
    return use_context(request_id=request_id, principal=made_by)


def _explained(error: LlamaStackError) -> str:
    hint = " (a job has no provider data of its caller: the key must be in the run config)"
    return storable_text(error.message) + (hint if isinstance(error, AuthenticationError) else "")
