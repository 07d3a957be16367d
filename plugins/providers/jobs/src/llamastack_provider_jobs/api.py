"""The API `jobs`: calls of other APIs that run in the background."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Protocol

from pydantic import Field, JsonValue

from llamastack.api.base import JsonObject, WireModel
from llamastack.api.definition import ApiDefinition
from llamastack.api.pagination import Limit, Page
from llamastack.api.webmethod import webmethod


class JobStatus(StrEnum):
    """The state of a job."""

    queued = "queued"
    running = "running"
    completed = "completed"
    failed = "failed"
    cancelled = "cancelled"


FINISHED = (JobStatus.completed, JobStatus.failed, JobStatus.cancelled)


class JobItemStatus(StrEnum):
    """The state of a part of a job."""

    pending = "pending"
    done = "done"
    failed = "failed"


class JobProgress(WireModel):
    """How far a job is.

    done, total: in `unit`; total is null if it is not known. failed: how many items of those that are done failed.
    """

    done: Annotated[float, Field(allow_inf_nan=False)] = 0
    total: Annotated[float | None, Field(allow_inf_nan=False)] = None
    unit: str = ""
    message: str = ""
    failed: int = 0


class JobError(WireModel):
    """Why the last attempt failed. status: the HTTP status that the call would have had."""

    status: int
    code: str
    message: str


class Job(WireModel):
    """A call that runs in the background. Times are in seconds since 1970.

    identifier: the object that the call names, such as a memory bank.
    attempt: how often the call was made.
    next_attempt_at: when a queued job that failed is tried again.
    is_cancelling: it is to be cancelled, and its worker has not done so yet.
    error: why the last attempt failed. A queued job has it while it waits for the next attempt.
    result: what the method replied; only `get_job` has it.
    """

    job_id: str
    api: str
    method: str
    identifier: str = ""
    status: JobStatus = JobStatus.queued
    attempt: int = 0
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    next_attempt_at: float | None = None
    is_cancelling: bool = False
    progress: JobProgress = Field(default_factory=JobProgress)
    error: JobError | None = None
    result: JsonValue = None


class JobItem(WireModel):
    """A part of a job, such as a document. place: in the order of the call, from 0. message: why it failed."""

    place: int
    name: str
    status: JobItemStatus = JobItemStatus.pending
    message: str = ""


class Jobs(Protocol):
    """Run calls of other APIs in the background."""

    @webmethod("/jobs", status=202, creates="job_id")
    async def create_job(
        self, api: str, method: str, arguments: JsonObject | None = None, provider_id: str | None = None
    ) -> Job:
        """Have `method` of `api` called in the background, with these arguments.

        They are checked at once, and so is whether the caller may make the call.
        """
        ...

    @webmethod("/jobs", methods=("GET",))
    async def list_jobs(
        self, status: JobStatus | None = None, limit: Limit | None = None, after: str | None = None
    ) -> Page[Job]:
        """The jobs, the newest first, without their results. limit: 20 if it is not given."""
        ...

    @webmethod("/jobs/{job_id}", methods=("GET",))
    async def get_job(self, job_id: str) -> Job:
        """One job, with its result."""
        ...

    @webmethod("/jobs/{job_id}/items", methods=("GET",))
    async def list_job_items(self, job_id: str, limit: Limit | None = None, after: str | None = None) -> Page[JobItem]:
        """The parts of a job, such as documents, in their order. limit: 100 if it is not given."""
        ...

    @webmethod("/jobs/{job_id}/cancel")
    async def cancel_job(self, job_id: str) -> Job:
        """Cancel a job. A running one is cancelled within a second or two; until then `is_cancelling` is set.

        A job that has ended stays as it is.
        """
        ...

    @webmethod("/jobs/{job_id}/retry")
    async def retry_job(self, job_id: str) -> Job:
        """Queue a failed job again. It goes on where it ended: items that are done are not done again."""
        ...


APIS = (ApiDefinition("jobs", Jobs),)
