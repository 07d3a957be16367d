"""Documents that real processes insert in the background: stopped, killed, cancelled, and by the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from installed_fakes import install
from running_server import RunningServer, running_server
from worker_processes import end, pids, wait_until

pytestmark = pytest.mark.xdist_group("workers")
COUNT = 200
RUN = """\
providers:
  memory:
  - {provider_id: docs, provider_type: kept-fake}
  jobs:
  - {provider_id: jobs, provider_type: durable, config: {lease_s: 3}}
server: {workers: WORKERS}
"""


def documents(**contents: str) -> list[dict[str, Any]]:
    texts = {f"d{n:03d}": f"text {n}" for n in range(COUNT)} | contents
    return [{"document_id": name, "content": text, "metadata": {}} for name, text in texts.items()]


@contextmanager
def serving(folder: Path, workers: int = 2) -> Iterator[tuple[RunningServer, httpx.Client]]:
    config = folder / "run.yaml"
    config.write_text(RUN.replace("WORKERS", str(workers)))
    if not (site := folder / "site").exists():
        install(
            site, "llamastack-provider-kept", {"llamastack.providers.memory": {"kept-fake": "kept_memory_fake:SPEC"}}
        )
    environment = {"PYTHONPATH": f"{site}:{Path(__file__).parents[1] / 'support'}"}
    with (
        running_server(config, home=folder, environment=environment) as running,
        # A connection for each request, as the process at its other end may be killed.
        httpx.Client(base_url=running.url, timeout=20, headers={"Connection": "close"}) as client,
    ):
        if workers > 1:
            wait_until(lambda: all(pids(running, f"worker-{n + 1}") for n in range(workers)))
        yield running, client


def register(client: httpx.Client) -> None:
    bank = {"type": "keyword", "identifier": "kb", "provider_id": "docs"}
    answer = client.post("/memory_banks/register", json={"memory_bank": bank})
    assert answer.status_code == 200, answer.text


def create(client: httpx.Client, **contents: str) -> str:
    arguments = {"bank_id": "kb", "documents": documents(**contents)}
    body = {"api": "memory", "method": "insert_documents", "arguments": arguments}
    # The worker that answers may not yet have seen the registration at another one.
    answer = wait_until(lambda: (given := client.post("/jobs", json=body)).status_code != 404 and given)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def job(client: httpx.Client, job_id: str) -> dict[str, Any]:
    try:
        answer = client.get(f"/jobs/{job_id}")
    except httpx.ReadError:  # the worker that had the connection was killed
        answer = client.get(f"/jobs/{job_id}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def ended(client: httpx.Client, job_id: str) -> dict[str, Any]:
    return dict(wait_until(lambda: (found := job(client, job_id))["finished_at"] and found, 30))


def under_way(client: httpx.Client, job_id: str) -> dict[str, Any]:
    return dict(wait_until(lambda: 64 <= (found := job(client, job_id))["progress"]["done"] < COUNT and found))


def stored(client: httpx.Client) -> Mapping[str, list[int]]:
    """The processes that stored each document, once for each time."""
    query = {"bank_id": "kb", "query": "x", "params": {"max_chunks": 1000}}
    found: dict[str, list[int]] = defaultdict(list)
    for chunk in client.post("/memory/query", json=query).json()["chunks"]:
        found[chunk["document_id"]].append(chunk["metadata"]["pid"])
    return found


def items(client: httpx.Client, job_id: str) -> dict[str, str]:
    page = client.get(f"/jobs/{job_id}/items", params={"limit": 1000}).json()
    return {item["name"]: item["status"] for item in page["data"]}


ALL_DONE = {f"d{n:03d}": "done" for n in range(COUNT)}


def test_another_worker_takes_over_the_job_of_a_killed_one(tmp_path: Path) -> None:
    with serving(tmp_path) as (_, client):
        register(client)
        job_id = create(client)
        under_way(client, job_id)
        [killed] = {pid for by in stored(client).values() for pid in by}
        os.kill(killed, signal.SIGKILL)
        done = ended(client, job_id)
        assert (done["status"], done["attempt"], done["progress"]["done"]) == ("completed", 2, COUNT)
        by = stored(client)
        assert by.keys() == items(client, job_id).keys()
        assert items(client, job_id) == ALL_DONE
        first = {name for name, pids_of in by.items() if killed in pids_of}
        again = {name for name in first if len(by[name]) > 1}
        assert len(first) >= 20
        # Documents are stored in batches of 64, and what is done is kept every half second.
        assert len(again) < 150
        assert {pid for pids_of in by.values() for pid in pids_of} - {killed}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_job_goes_on_after_a_restart_of_the_server(tmp_path: Path, how: signal.Signals) -> None:
    with serving(tmp_path) as (running, client):
        register(client)
        job_id = create(client)
        under_way(client, job_id)
        processes = end(running, how)
    with serving(tmp_path) as (running, client):
        done = ended(client, job_id)
        attempts = 1 if how is signal.SIGTERM else 2
        assert (done["status"], done["attempt"], done["progress"]["done"]) == ("completed", attempts, COUNT)
        by = stored(client)
        assert items(client, job_id) == ALL_DONE
        before = {name for name, pids_of in by.items() if {*pids_of} & {*processes}}
        assert 20 <= len(before) < COUNT
        if how is signal.SIGTERM:
            assert sum(len(pids_of) > 1 for pids_of in by.values()) < 64  # the batch that was being stored
        assert "Traceback" not in "".join(running.output)


def test_jobs_on_the_command_line(tmp_path: Path) -> None:
    with serving(tmp_path, workers=1) as (running, client):
        register(client)

        def llamastack(*words: str) -> tuple[int, str, str]:
            command = [str(Path(sys.executable).with_name("llamastack")), "jobs", *words]
            environment = {**os.environ, "LLAMASTACK_URL": running.url}
            done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
            return done.returncode, done.stdout, done.stderr

        arguments = tmp_path / "arguments.json"
        arguments.write_text(json.dumps({"bank_id": "kb", "documents": documents(bad="file:///etc/passwd")}))
        made = llamastack("create", "--api", "memory", "--method", "insert_documents", "--arguments", f"@{arguments}")
        job_id = json.loads(made[1])["job_id"]
        status, shown, errors = llamastack("show", job_id, "--wait")
        assert status == 1
        assert errors == "memory kb: insert_documents ...\n"
        assert f"progress  {COUNT + 1} of {COUNT + 1} documents, 1 failed\n" in shown
        assert (
            f"error     1 of {COUNT + 1} documents failed; the items of the job say why (422 items_failed)\n" in shown
        )
        assert f"{COUNT}    bad   failed  file: URLs are not read here; send the text itself\n" in shown
        assert "d000" not in shown
        status, text, _ = llamastack("show", job_id, "--items", "--json")
        assert (status, len(json.loads(text)["items"])) == (1, COUNT + 1)

        assert llamastack("retry", job_id)[:2] == (0, f"job {job_id}: queued\n")
        ended(client, job_id)
        assert {len(by) for by in stored(client).values()} == {1}  # only the failed one was tried again

        other = create(client)
        under_way(client, other)
        status, text, errors = llamastack("cancel", "job-x", other, job_id)
        assert (status, errors) == (1, "error: there is no job 'job-x'\n")  # the others are cancelled nevertheless
        assert text == f"job {other}: running, is being cancelled\njob {job_id}: failed\n"
        assert ended(client, other)["status"] == "cancelled"
        status, text, errors = llamastack("retry", other)
        assert (status, errors) == (1, f"error: job '{other}' is cancelled; only a failed job can be retried\n")

        status, text, _ = llamastack("list")
        lines = text.splitlines()
        assert lines[0].split() == ["job", "call", "object", "status", "progress", "created"]
        assert [line.split()[:4] for line in lines[1:]] == [
            [other, "memory.insert_documents", "kb", "cancelled"],
            [job_id, "memory.insert_documents", "kb", "failed"],
        ]
        status, text, _ = llamastack("list", "--status", "failed", "--json")
        assert [each["job_id"] for each in json.loads(text)] == [job_id]
        status, _, errors = llamastack("show", "job-x")
        assert (status, errors) == (1, "error: there is no job 'job-x'\n")
