"""Workers and callers whose calls of the store run into each other, in an order that a seed decides."""

from __future__ import annotations

import random
import time
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from work_fake import WorkFake, ended, kinds_with_records, workers

from llamastack.provider import BackendError, ConflictError
from llamastack.provider.memory_store import MemoryStore
from llamastack.provider.store import Record
from llamastack_provider_jobs import worker as worker_module
from llamastack_provider_jobs.api import FINISHED, JobStatus

pytestmark = pytest.mark.anyio
RETRIES = 12


class InterleavedStore(MemoryStore):
    """Other tasks run before and after each call."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)

    async def _others(self) -> None:
        for _ in range(self._random.choice((0, 0, 0, 1, 2, 30))):
            await anyio.lowlevel.checkpoint()

    async def get(self, kind: str, key: str) -> Record | None:
        await self._others()
        found = await super().get(kind, key)
        await self._others()
        return found

    async def put(self, *arguments: Any, **named: Any) -> Record:
        await self._others()
        kept = await super().put(*arguments, **named)
        await self._others()
        return kept

    async def swap(self, *arguments: Any, **named: Any) -> Record | None:
        await self._others()
        kept = await super().swap(*arguments, **named)
        await self._others()
        return kept

    async def delete(self, kind: str, key: str) -> bool:
        await self._others()
        deleted = await super().delete(kind, key)
        await self._others()
        return deleted


@pytest.mark.parametrize("seed", range(6))
async def test_no_job_is_lost_or_runs_twice_at_a_time(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_POLL_S", 0.001)
    store, chance = InterleavedStore(seed), random.Random(seed)
    running: set[str] = set()

    async def do(arguments: dict[str, Any]) -> str:
        name = arguments["name"]
        assert name not in running
        running.add(name)
        try:
            await anyio.sleep(0.001 * chance.randrange(3))
            if chance.random() < 0.8:
                raise BackendError("no")
        finally:
            running.discard(name)
        return name

    async def drive(jobs: Any, others: Any, name: str) -> None:
        """Retry it at either worker as soon as it has failed, and cancel some."""
        job_id = (await jobs.create_job("work", "do", {"name": name})).job_id
        for attempt in range(RETRIES):
            job = await ended(jobs, job_id)
            if job.status is not JobStatus.failed:
                break
            try:
                await chance.choice((jobs, others)).retry_job(job_id)
            except ConflictError:
                continue
            if attempt == 8 and chance.random() < 0.5:
                await others.cancel_job(job_id)
        job = await ended(jobs, job_id)
        assert job.status in FINISHED
        assert job.result == (name if job.status is JobStatus.completed else None)

    async with workers(store, WorkFake(do), 3, concurrency=3) as at, anyio.create_task_group() as tasks:
        for n in range(8):
            tasks.start_soon(drive, at[n % 3].jobs, at[(n + 1) % 3].jobs, str(n))
    left = at[0].jobs._store  # of workers that were stopped in the middle of a change
    monkeypatch.setattr(left, "now", lambda: time.time() + 700)
    assert await left.claim("last") is None
    assert "open" not in kinds_with_records(store)
