"""The settings of an instance of `jobs`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class JobsConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")

    concurrency: int = Field(
        2, ge=0, le=1000, description="Jobs that one worker process runs at the same time; 0: none"
    )
    lease_s: float = Field(
        15, ge=3, le=3600, description="Seconds after which the job of a dead worker process is run by another one"
    )
    max_worker_deaths: int = Field(
        3, ge=1, description="Worker processes that may die while they run a job, before the job fails"
    )
    retry_for_s: float = Field(
        86_400, ge=0, description="Seconds for which a job is tried again whose backend is down or too slow"
    )
    kept_s: float = Field(7 * 86_400, gt=0, description="Seconds for which a finished job is kept")
    max_bytes: int = Field(
        32 * 2**20, gt=0, description="Largest arguments of a job, and largest result, in bytes of JSON"
    )
