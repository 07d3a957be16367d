"""Jobs in the stack's store."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from llamastack.api.base import JsonObject
from llamastack.api.pagination import Page
from llamastack.provider import Deps, InternalError, InvalidRequestError
from llamastack.provider.context import Principal, current_context
from llamastack_provider_jobs.api import Job, JobItem, Jobs, JobStatus
from llamastack_provider_jobs.config import JobsConfig
from llamastack_provider_jobs.job_record import JobPrincipal, JobRecord
from llamastack_provider_jobs.job_store import JobStore
from llamastack_provider_jobs.named_calls import check_call, find_method
from llamastack_provider_jobs.worker import Worker

_SCANNED = 200
_USUAL_JOBS = 20
_USUAL_ITEMS = 100
_LONGEST_IDENTIFIER = 512


class StoreJobs(Jobs):
    """Keeps jobs, and runs them in this process."""

    def __init__(self, config: JobsConfig, deps: Deps) -> None:
        self._deps = deps
        self._store = JobStore(config, deps)
        self._worker = Worker(config, deps, self._store)
        self._itself: Principal | None = None

    async def initialize(self) -> None:
        self._itself = current_context().principal
        self._worker.start()

    async def shutdown(self) -> None:
        await self._worker.stop()

    async def create_job(
        self, api: str, method: str, arguments: JsonObject | None = None, provider_id: str | None = None
    ) -> Job:
        given = arguments or {}
        call = find_method(self._deps, api, method)
        await check_call(call, given)
        job = JobRecord(
            job_id=self._store.new_id(),
            api=api,
            method=method,
            identifier=str(given.get(call.definition.web.routed_by or "", ""))[:_LONGEST_IDENTIFIER],
            created_at=self._store.now(),
            **self._maker(),
        )
        await self._store.create(job, given)
        self._worker.wake()
        return job.public()

    def _maker(self) -> dict[str, Any]:
        principal = current_context().principal
        if principal is self._itself:
            return {"by_stack": True}
        if principal is None:
            return {}
        try:
            attributes = to_jsonable_python(dict(principal.attributes))
            return {"principal": JobPrincipal(id=principal.id, attributes=attributes)}
        except (ValidationError, PydanticSerializationError):
            raise InternalError(
                "the attributes of the caller's principal are no JSON, so a job cannot keep them"
            ) from None

    async def list_jobs(
        self, status: JobStatus | None = None, limit: int | None = None, after: str | None = None
    ) -> Page[Job]:
        wanted = limit or _USUAL_JOBS
        found: list[JobRecord] = []
        last: str | None = after or ""
        while len(found) <= wanted and last is not None:
            jobs, last = await self._store.listed(last, wanted + 1 if status is None else _SCANNED)
            found += [job for job in jobs if status in (None, job.status)]
        data = [job.public() for job in found[:wanted]]
        return Page(data=data, has_more=len(found) > wanted, last_id=data[-1].job_id if data else None)

    async def get_job(self, job_id: str) -> Job:
        job = (await self._store.entry(job_id)).value
        return job.public(await self._store.results.read(job.result_key) if job.result_key else None)

    async def list_job_items(self, job_id: str, limit: int | None = None, after: str | None = None) -> Page[JobItem]:
        await self._store.entry(job_id)
        if after is not None and not (after.isascii() and after.isdecimal() and len(after) <= 9):
            raise InvalidRequestError(f"after: '{after}' is not the place of an item", param="after")
        first, wanted = 0 if after is None else int(after) + 1, limit or _USUAL_ITEMS
        items = await self._store.items_from(job_id, first, wanted + 1)
        data = items[:wanted]
        return Page(data=data, has_more=len(items) > wanted, last_id=str(data[-1].place) if data else None)

    async def cancel_job(self, job_id: str) -> Job:
        return (await self._store.cancel(job_id)).public()

    async def retry_job(self, job_id: str) -> Job:
        job = (await self._store.entry(job_id)).value
        if job.status is JobStatus.failed:
            arguments = await self._store.arguments_of(job_id)
            await check_call(find_method(self._deps, job.api, job.method), arguments)
        again = await self._store.retry(job_id)
        self._worker.wake()
        return again.public()


async def get_provider_impl(config: JobsConfig, deps: Deps) -> StoreJobs:
    return StoreJobs(config, deps)
