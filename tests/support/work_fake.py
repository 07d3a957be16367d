"""An API `work` whose methods do what a test says, and workers that run jobs on one store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup, TaskStatus
from pydantic import JsonValue

from llamastack.api.definition import ApiDefinition, MethodDefinition
from llamastack.api.webmethod import webmethod
from llamastack.provider import Deps
from llamastack.provider.api_handle import ApiHandle, Dispatch
from llamastack.provider.jobs import CurrentJob, current_job
from llamastack.provider.memory_store import MemoryStore
from llamastack.provider.store import Store
from llamastack_provider_jobs import DURABLE
from llamastack_provider_jobs.api import FINISHED, Job
from llamastack_provider_jobs.provider import StoreJobs


class Work(Protocol):
    """Work of a test."""

    @webmethod("/work", routed_by="name")
    async def do(self, name: str, size: int = 1) -> JsonValue: ...

    @webmethod("/work/sum")
    async def add(self, numbers: list[int]) -> JsonValue: ...

    @webmethod("/work/pieces")
    async def pieces(self, stream: bool = False) -> dict[str, Any] | AsyncIterator[dict[str, Any]]: ...

    @webmethod("/work/bytes")
    async def of_bytes(self, content: bytes) -> dict[str, Any]: ...

    @webmethod("/work", methods=("GET",))
    async def list_work(self) -> list[dict[str, Any]]: ...


Do = Callable[[dict[str, Any]], Awaitable[Any]]


class WorkFake:
    """do: what every method does. refuse: what a check does."""

    def __init__(self, do: Do | None = None, refuse: Do | None = None) -> None:
        self.do, self.refuse = do, refuse
        self.calls: list[dict[str, Any]] = []

    def handle(self) -> ApiHandle:
        return ApiHandle(ApiDefinition("work", Work), self._call, self._check)

    def _call(self, method: MethodDefinition) -> Dispatch:
        async def dispatch(arguments: dict[str, Any]) -> Any:
            self.calls.append(arguments)
            return await self.do(arguments) if self.do else {"did": arguments}

        return dispatch

    def _check(self, method: MethodDefinition) -> Dispatch:
        async def dispatch(arguments: dict[str, Any]) -> Any:
            if self.refuse:
                await self.refuse(arguments)

        return dispatch


class RunningWorker:
    """A worker process, as far as one process can have several. `kill` ends it without a chance to give jobs back."""

    def __init__(self, jobs: StoreJobs, deps: Deps) -> None:
        self.jobs, self._deps = jobs, deps

    def kill(self) -> None:
        self.jobs._worker._interrupted = _nothing  # type: ignore[method-assign]
        self._deps.task_group.cancel_scope.cancel()


async def _nothing(*_: Any) -> None:
    await anyio.sleep(0)


@asynccontextmanager
async def worker(store: Store, work: WorkFake, **config: Any) -> AsyncIterator[RunningWorker]:
    settings = DURABLE.load_config_class()(**config)

    async def hold(*, task_status: TaskStatus[TaskGroup]) -> None:
        async with anyio.create_task_group() as own:
            task_status.started(own)
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        own: TaskGroup = await tasks.start(hold)
        deps = Deps(provider_id="jobs", api="jobs", apis={"work": work.handle()}, task_group=own, store=store)
        jobs = await DURABLE.load_factory()(settings, deps)
        await jobs.initialize()
        try:
            yield RunningWorker(jobs, deps)
        finally:
            with anyio.CancelScope(shield=True):
                await jobs.shutdown()
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def workers(store: Store, work: WorkFake, count: int, **config: Any) -> AsyncIterator[list[RunningWorker]]:
    async with AsyncExitStack() as opened:
        yield [await opened.enter_async_context(worker(store, work, **config)) for _ in range(count)]


async def until(jobs: Any, job_id: str, is_so: Callable[[Job], bool]) -> Job:
    with anyio.fail_after(20):
        while not is_so(job := await jobs.get_job(job_id)):
            await anyio.sleep(0.01)
    return job


async def ended(jobs: Any, job_id: str) -> Job:
    return await until(jobs, job_id, lambda job: job.status in FINISHED)


def this_job() -> CurrentJob:
    job = current_job("work", "do")
    assert job is not None
    return job


def kinds_with_records(store: MemoryStore) -> set[str]:
    """What the store has of jobs."""
    kinds = {kind for kind, records in store._kinds.items() if any(record.value for record in records.values())}
    return {kind.split("/")[2] for kind in kinds if kind.startswith("kv/jobs/")}
