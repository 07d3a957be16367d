"""The items of jobs, and what a running method may report."""

from __future__ import annotations

from typing import Any

import pytest
from work_fake import WorkFake, ended, this_job, worker

from llamastack.provider import (
    BackendError,
    InvalidRequestError,
    ProviderUnavailableError,
)
from llamastack.provider.jobs import current_job
from llamastack.provider.memory_store import MemoryStore
from llamastack.provider.redaction import Redactor
from llamastack_provider_jobs.api import JobItemStatus, JobStatus

pytestmark = pytest.mark.anyio


async def test_every_item_has_a_status_and_only_failed_ones_are_tried_again() -> None:
    tried: list[int] = []

    async def do(_: Any) -> None:
        job = this_job()
        for place in job.open_items([f"n{n}" for n in range(250)], "documents"):
            tried.append(place)
            fails = place in (3, 170) and len(tried) <= 250
            job.finish_item(place, InvalidRequestError(f"bad {place}") if fails else None)

    async with worker(MemoryStore(), WorkFake(do)) as at:
        job = await ended(at.jobs, (await at.jobs.create_job("work", "do", {"name": "a"})).job_id)
        assert job.status is JobStatus.failed
        assert job.error is not None
        assert job.error.message == "2 of 250 documents failed; the items of the job say why"
        assert (job.progress.done, job.progress.total, job.progress.failed) == (250, 250, 2)
        first = await at.jobs.list_job_items(job.job_id, limit=150)
        rest = await at.jobs.list_job_items(job.job_id, limit=150, after=first.last_id)
        assert (len(first.data), first.has_more, len(rest.data), rest.has_more) == (150, True, 100, False)
        items = [*first.data, *rest.data]
        assert [(item.place, item.name) for item in items] == [(n, f"n{n}") for n in range(250)]
        failed = {item.place: item.message for item in items if item.status is JobItemStatus.failed}
        assert failed == {3: "bad 3", 170: "bad 170"}
        await at.jobs.retry_job(job.job_id)
        job = await ended(at.jobs, job.job_id)
        assert (job.status, job.progress.done, job.progress.failed) == (JobStatus.completed, 250, 0)
        assert tried == [*range(250), 3, 170]
        with pytest.raises(InvalidRequestError, match=r"^after: 'x' is not the place of an item$"):
            await at.jobs.list_job_items(job.job_id, after="x")


async def test_a_method_may_report_beside_its_items() -> None:
    async def do(_: Any) -> None:
        [place] = this_job().open_items(["a"])
        this_job().finish_item(place, BackendError("no"))
        this_job().report(7)

    async with worker(MemoryStore(), WorkFake(do)) as at:
        job = await ended(at.jobs, (await at.jobs.create_job("work", "do", {"name": "a"})).job_id)
    assert job.error is not None
    assert job.error.message == "1 items failed; the items of the job say why"


async def test_a_later_attempt_goes_on_behind_what_is_done() -> None:
    store = MemoryStore()
    tried: list[int] = []

    async def do(_: Any) -> None:
        job = this_job()
        for place in job.open_items(["a", "b", "c", "d"]):
            if place == 2 and job.attempt == 1:
                raise ProviderUnavailableError("down")
            tried.append(place)
            job.finish_item(place)

    async with worker(store, WorkFake(do)) as at:
        job = await ended(at.jobs, (await at.jobs.create_job("work", "do", {"name": "a"})).job_id)
    assert (job.status, job.attempt, tried) == (JobStatus.completed, 2, [0, 1, 2, 3])


async def test_items_that_cannot_be_kept_as_they_are() -> None:
    async def do(_: Any) -> None:
        job = this_job()
        for place in job.open_items(["\ud800", "x" * 5000]):
            job.finish_item(place, BackendError("y" * 5000) if place else None)
        with pytest.raises(ValueError, match="item 0 is done already"):
            job.finish_item(0)
        for place in (-1, 2):
            with pytest.raises(ValueError, match=f"there is no item {place}: the job has 2 items"):
                job.finish_item(place)
        with pytest.raises(ValueError, match="at most 65,536 bytes of JSON"):
            job.checkpoint = "x" * 300_000
        with pytest.raises(ValueError, match="finite"):
            job.report(float("nan"))

    async with worker(MemoryStore(), WorkFake(do)) as at:
        job = await ended(at.jobs, (await at.jobs.create_job("work", "do", {"name": "a"})).job_id)
        items = (await at.jobs.list_job_items(job.job_id)).data
    assert job.error is not None
    assert job.error.code == "items_failed"
    assert [(item.name, item.message) for item in items] == [("?", ""), ("x" * 1000, "y" * 1000)]


async def test_only_the_method_of_the_job_sees_it() -> None:
    async def do(arguments: Any) -> None:
        assert current_job("work", "do") is not None
        assert current_job("work", "add") is None  # a call that the method makes
        assert current_job("other", "do") is None

    async with worker(MemoryStore(), WorkFake(do)) as at:
        job = await ended(at.jobs, (await at.jobs.create_job("work", "do", {"name": "a"})).job_id)
    assert job.error is None
    assert current_job("work", "do") is None


async def test_secrets_of_the_run_config_are_in_no_message() -> None:
    redactor = Redactor({"api_key": "sk-very-secret"})

    async def do(_: Any) -> None:
        job = this_job()
        job.report(1, message="asked with sk-very-secret")
        reported.append(job.progress.message)  # type: ignore[attr-defined]
        [place] = job.open_items(["a"])
        job.finish_item(place, BackendError("refused sk-very-secret"))

    reported: list[str] = []
    store = MemoryStore()
    async with worker(store, WorkFake(do)) as at:
        job = await ended(at.jobs, (await at.jobs.create_job("work", "do", {"name": "a"})).job_id)
        [item] = (await at.jobs.list_job_items(job.job_id)).data
    assert (reported, item.message) == (["asked with ***"], "refused ***")
    assert "sk-very" not in repr(store._kinds)
    assert redactor("sk-very-secret") == "***"  # known as long as it is there
