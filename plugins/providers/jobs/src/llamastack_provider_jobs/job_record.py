"""A job as it is kept."""

from __future__ import annotations

from pydantic import BaseModel, JsonValue

from llamastack_provider_jobs.api import Job, JobStatus


class JobPrincipal(BaseModel):
    """A `llamastack.provider.context.Principal`. It is in no reply and in no log: attributes may be private."""

    id: str
    attributes: dict[str, JsonValue]


class JobRecord(Job):
    """A job as it is kept.

    principal: who created it, and whom the call is made for. by_stack: the stack itself created it, not a caller.
    result_key: where the result is. due_key: its entry under `open`.
    worker: the one that runs it. lease_until: until then no other worker may.
    deaths: workers that died while they ran it. failures, failing_since: transient errors in a row, and since when.
    best: the most that the method has reported as done.
    checkpoint: what the method keeps for its next attempt.
    """

    principal: JobPrincipal | None = None
    by_stack: bool = False
    result_key: str | None = None
    due_key: str | None = None
    worker: str | None = None
    lease_until: float | None = None
    deaths: int = 0
    failures: int = 0
    failing_since: float | None = None
    best: float = 0
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
