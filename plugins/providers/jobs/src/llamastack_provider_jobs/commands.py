"""`llamastack jobs list|show|cancel|retry`."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import click

from llamastack.api.pagination import all_listed
from llamastack.provider import ConflictError, NotFoundError, ProviderUnavailableError
from llamastack.provider.commands import CliError, CommandOutput
from llamastack.provider.deps import Progress
from llamastack_provider_jobs.api import FINISHED, Job, JobItem, JobItemStatus, JobStatus

if TYPE_CHECKING:
    from llamastack import LlamaStackClient

_LOOK_EVERY_S = 0.5
_LONGEST_AWAY_S = 60.0
_LARGEST_PAGE = 1000
_MOST_FAILED_SHOWN = 20
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_job_ids = click.argument("job_ids", metavar="JOB_ID...", nargs=-1, required=True)


@click.command("list", help="List jobs, the newest first.")
@click.option("--status", type=click.Choice([each.value for each in JobStatus]), help="Only jobs of this status.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="The most jobs to list.")
@_as_json
@click.pass_obj
def list_jobs(output: CommandOutput, status: str | None, limit: int, as_json: bool) -> None:
    async def talk(client: LlamaStackClient) -> list[Job]:
        found: list[Job] = []
        wanted = {} if status is None else {"status": JobStatus(status)}
        async for job in all_listed(client.api("jobs").list_jobs, limit=min(limit, _LARGEST_PAGE), **wanted):
            found.append(job)
            if len(found) == limit:
                break
        return found

    jobs = output.call_server(talk)
    if as_json:
        output.json([job.to_wire() for job in jobs])
        return
    headers = ("job", "call", "object", "status", "progress", "created")
    output.table(
        headers,
        [(job.job_id, _call(job), job.identifier, _status(job), _progress(job), _at(job.created_at)) for job in jobs],
    )


@click.command("show", help="Show a job, and what failed in it. Exit status 1 if it failed or was cancelled.")
@click.argument("job_id")
@click.option("--wait", is_flag=True, help="Wait until the job has ended; meanwhile show its progress.")
@click.option("--items", "every_item", is_flag=True, help="Show all items, such as documents, not only failed ones.")
@_as_json
@click.pass_context
def show_job(ctx: click.Context, job_id: str, wait: bool, every_item: bool, as_json: bool) -> None:
    output: CommandOutput = ctx.obj

    async def talk(client: LlamaStackClient) -> tuple[Job, list[JobItem]]:
        job = await (_ended(client, job_id, output) if wait else client.api("jobs").get_job(job_id=job_id))
        items: list[JobItem] = []
        if every_item or job.progress.failed:
            listed = all_listed(client.api("jobs").list_job_items, job_id=job_id, limit=_LARGEST_PAGE)
            items = [item async for item in listed if every_item or item.status is JobItemStatus.failed]
        return job, items

    job, items = output.call_server(talk)
    if as_json:
        output.json({**job.to_wire(), "items": [item.to_wire() for item in items]})
    else:
        output.table((), _rows(job))
        shown = items if every_item else items[:_MOST_FAILED_SHOWN]
        if shown:
            rows = [(item.place, item.name, item.status, item.message) for item in shown]
            output.table(("place", "item", "status", "message"), rows)
        if len(items) > len(shown):
            output.say(f"... and {len(items) - len(shown):,} more; --items shows all")
    if job.status in (JobStatus.failed, JobStatus.cancelled):
        ctx.exit(1)


@click.command("cancel", help="Cancel jobs. A job that has ended stays as it is.")
@_job_ids
@_as_json
@click.pass_obj
def cancel_jobs(output: CommandOutput, job_ids: Sequence[str], as_json: bool) -> None:
    _change(output, "cancel_job", job_ids, as_json)


@click.command("retry", help="Queue failed jobs again. Items that are done are not done again.")
@_job_ids
@_as_json
@click.pass_obj
def retry_jobs(output: CommandOutput, job_ids: Sequence[str], as_json: bool) -> None:
    _change(output, "retry_job", job_ids, as_json)


def _change(output: CommandOutput, method: str, job_ids: Sequence[str], as_json: bool) -> None:
    async def talk(client: LlamaStackClient) -> list[str]:
        failed: list[str] = []
        for job_id in job_ids:
            try:
                job: Job = await client.api("jobs").methods[method](job_id=job_id)
            except (NotFoundError, ConflictError) as error:
                failed.append(error.message)  # the other jobs are changed nevertheless
                continue
            if as_json:
                output.json(job.to_wire())
            else:
                output.say(f"job {job.job_id}: {_status(job)}")
        return failed

    failed = output.call_server(talk)
    if failed:
        raise CliError(*failed)


# ---- waiting -----------------------------------------------------------------------------------------------------


@dataclass
class _Work:
    """What the display of progress names: a `Preparing`."""

    api: str
    provider_id: str


async def _ended(client: LlamaStackClient, job_id: str, output: CommandOutput) -> Job:
    display = output.progress()
    away_until = 0.0
    with display.waiting():
        while True:
            try:
                job: Job = await client.api("jobs").get_job(job_id=job_id)
            except ProviderUnavailableError:  # the server restarts; the job goes on
                now = anyio.current_time()
                away_until = away_until or now + _LONGEST_AWAY_S
                if now > away_until:
                    raise
            else:
                away_until = 0.0
                if job.status in FINISHED:
                    return job
                at = job.progress
                if job.status is JobStatus.running and at.done != at.total:
                    work = _Work(job.api, job.identifier or job.job_id)
                    display(work, Progress(job.method, at.done, at.total, at.unit))
            await anyio.sleep(_LOOK_EVERY_S)


# ---- words -------------------------------------------------------------------------------------------------------


def _rows(job: Job) -> list[tuple[str, str]]:
    rows = [
        ("job", job.job_id),
        ("call", _call(job)),
        ("object", job.identifier),
        ("status", _status(job)),
        ("attempt", str(job.attempt) if job.attempt else ""),
        ("progress", _progress(job)),
        ("message", job.progress.message),
        ("created", _at(job.created_at)),
        ("started", _at(job.started_at)),
        ("finished", _at(job.finished_at)),
        ("next attempt", _at(job.next_attempt_at)),
        ("error", "" if job.error is None else f"{job.error.message} ({job.error.status} {job.error.code})"),
        ("result", "" if job.result is None else json.dumps(job.result, ensure_ascii=False)),
    ]
    return [(name, text) for name, text in rows if text]


def _call(job: Job) -> str:
    return f"{job.api}.{job.method}"


def _status(job: Job) -> str:
    return f"{job.status}, is being cancelled" if job.is_cancelling else str(job.status)


def _progress(job: Job) -> str:
    at = job.progress
    if not at.done and at.total is None:
        return ""
    done = f"{at.done:,g}" if at.total is None else f"{at.done:,g} of {at.total:,g}"
    failed = f", {at.failed:,} failed" if at.failed else ""
    return f"{done} {at.unit}".strip() + failed


def _at(seconds: float | None) -> str:
    """Local time."""
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
