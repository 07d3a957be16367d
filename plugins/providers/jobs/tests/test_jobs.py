"""Jobs as callers see them: what runs, what is refused, for whom, how much."""

from __future__ import annotations

from typing import Any

import pytest
from work_fake import WorkFake, ended, kinds_with_records, worker

from llamastack.provider import (
    InternalError,
    InvalidRequestError,
    PermissionDeniedError,
    RequestTooLargeError,
)
from llamastack.provider.context import Principal, current_context, use_context
from llamastack.provider.memory_store import MemoryStore
from llamastack_provider_jobs.api import JobStatus

pytestmark = pytest.mark.anyio


async def test_a_call_runs_in_the_background() -> None:
    work = WorkFake()
    async with worker(MemoryStore(), work) as at:
        created = await at.jobs.create_job("work", "do", {"name": "a", "size": 2})
        assert (created.status, created.identifier, created.attempt) == (JobStatus.queued, "a", 0)
        job = await ended(at.jobs, created.job_id)
        assert (job.status, job.attempt, job.error) == (JobStatus.completed, 1, None)
        assert job.result == {"did": {"name": "a", "size": 2}}
        assert job.finished_at is not None
        assert job.started_at is not None
        assert job.created_at <= job.started_at <= job.finished_at
        [listed] = (await at.jobs.list_jobs()).data
        assert listed == job.model_copy(update={"result": None})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing", "do"), "api: 'nothing' is not one of work"),
        (("work", "gone"), "method: 'gone' of work cannot run as a job; allowed: do, add, pieces"),
        (("work", "of_bytes"), "method: 'of_bytes' of work cannot run as a job"),
        (("work", "list_work"), "method: 'list_work' of work cannot run as a job"),
        (("work", "pieces", {"stream": True}), "arguments.stream: a job has one reply, no stream"),
        (("work", "do", {}), "arguments.name: required field is missing"),
        (("work", "do", {"name": "a", "size": "x"}), "arguments.size: "),
        (("work", "do", {"name": "\ud800"}), "arguments: cannot be kept as JSON"),
        (("work", "do", {"name": "a", "self": 1}), "arguments.self: unknown field"),
        (("work", "do", {"size": "x"}), "arguments.name: required field is missing; arguments.size: "),
    ],
)
async def test_what_cannot_run_is_refused_and_not_kept(arguments: Any, message: str) -> None:
    store = MemoryStore()
    async with worker(store, WorkFake()) as at:
        with pytest.raises(InvalidRequestError) as caught:
            await at.jobs.create_job(*arguments)
        assert str(caught.value).startswith(message)
        assert caught.value.param == message.partition(":")[0]
        assert kinds_with_records(store) == set()


async def test_what_the_caller_may_not_do_is_refused() -> None:
    async def refuse(_: Any) -> None:
        assert current_context().request_id == "of the caller"
        raise PermissionDeniedError("not you")

    async with worker(MemoryStore(), WorkFake(refuse=refuse)) as at:
        with use_context(request_id="of the caller"), pytest.raises(PermissionDeniedError, match="not you"):
            await at.jobs.create_job("work", "do", {"name": "a"})


async def test_a_job_has_no_data_of_the_request_that_created_it() -> None:
    seen: list[Any] = []

    async def do(_: Any) -> None:
        seen.append((current_context().provider_data, current_context().request_id))

    store = MemoryStore()
    async with worker(store, WorkFake(do)) as at:
        with use_context(provider_data={"key": "secret"}, request_id="r"):
            job = await at.jobs.create_job("work", "do", {"name": "a"})
        await ended(at.jobs, job.job_id)
    assert seen == [(None, f"{job.job_id}-1")]
    assert "secret" not in repr(store._kinds)


async def test_a_job_may_do_what_its_creator_may_do() -> None:
    seen: list[Any] = []
    itself = Principal("llamastack")

    async def do(_: Any) -> None:
        seen.append(current_context().principal)

    work = WorkFake(do)
    with use_context(principal=itself):  # as a stack starts its providers
        async with worker(MemoryStore(), work) as at:
            ann = Principal("ann", {"groups": ["readers"], "level": 3})
            for principal in (ann, None, itself):
                with use_context(principal=principal):
                    job = await at.jobs.create_job("work", "do", {"name": "a"})
                    await ended(at.jobs, job.job_id)
                assert "readers" not in job.model_dump_json()
            assert seen[:2] == [ann, None]
            assert seen[2] is itself
            with use_context(principal=Principal("bob", {"groups": {"a"}, "pair": (1, 2)})):
                await ended(at.jobs, (await at.jobs.create_job("work", "do", {"name": "a"})).job_id)
            assert seen[3] == Principal("bob", {"groups": ["a"], "pair": [1, 2]})
            with (
                use_context(principal=Principal("ann", {"key": object()})),
                pytest.raises(InternalError, match="the attributes of the caller's principal are no JSON"),
            ):
                await at.jobs.create_job("work", "do", {"name": "a"})


async def test_arguments_and_results_of_any_size_up_to_the_limit() -> None:
    async def do(arguments: dict[str, Any]) -> dict[str, str]:
        assert arguments["name"] == text
        return {"text": "\u20ac" * arguments["size"]}

    text = '"\u20ac\\' * 1_500_000
    async with worker(MemoryStore(), WorkFake(do), max_bytes=12_000_000) as at:
        job = await ended(at.jobs, (await at.jobs.create_job("work", "do", {"name": text, "size": 3_500_000})).job_id)
        assert job.result == {"text": "\u20ac" * 3_500_000}
        job = await ended(at.jobs, (await at.jobs.create_job("work", "do", {"name": text, "size": 4_500_000})).job_id)
        assert job.status is JobStatus.failed
        assert job.error is not None
        assert (job.error.status, job.error.message) == (413, "result: 13,500,011 bytes of JSON, at most 12,000,000")
        with pytest.raises(RequestTooLargeError, match=r"^arguments: 21,000,011 bytes of JSON, at most 12,000,000$"):
            await at.jobs.create_job("work", "do", {"name": text * 2})
