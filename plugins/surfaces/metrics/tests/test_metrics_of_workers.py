"""Several workers: every scrape shows the sums of all, and counters never fall."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from metrics_samples import Samples, samples_in, value
from running_server import RunningServer, running_server
from worker_processes import asked, pids, wait_until, worker_of

# One process starts the server.
pytestmark = pytest.mark.xdist_group("metrics of workers")

SAMPLE = 'providers:\n  inference:\n  - {provider_id: foo, provider_type: "remote::sample", config: {models: [a]}}\n'
CHAT = {"model": "a", "messages": [{"role": "user", "content": "Hi"}]}
CALLS, REQUESTS = "llamastack_provider_calls_total", "llamastack_http_requests_total"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture(params=["server's port", "own port"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[RunningServer, str]]:
    """A server of two workers, and the URL of its metrics."""
    config = tmp_path / "run.yaml"
    port = free_port() if request.param == "own port" else None
    own = "" if port is None else f"metrics: {{port: {port}}}\n"
    config.write_text(f"{SAMPLE}server: {{workers: 2}}\n{own}")
    with running_server(config, home=tmp_path) as running:
        wait_until(lambda: all(pids(running, worker) for worker in ("worker-1", "worker-2")))
        yield running, running.url if port is None else f"http://127.0.0.1:{port}"


def scraped(url: str) -> Samples:
    """A scrape on a connection of its own, which any worker may get."""
    reply = httpx.get(f"{url}/metrics", timeout=20)
    assert reply.status_code == 200, reply.text
    return samples_in(reply.text)


def counters(samples: Samples) -> Samples:
    return {key: number for key, number in samples.items() if key[0].endswith(("_total", "_count", "_bucket"))}


def assert_no_counter_fell(before: Samples, after: Samples) -> None:
    assert {key: number for key, number in counters(before).items() if after.get(key, 0) < number} == {}


def test_a_worker_that_is_killed_takes_no_counts_with_it(server: tuple[RunningServer, str]) -> None:
    running, url = server
    clients: dict[str, httpx.Client] = {}
    while len(clients) < 2:
        client = httpx.Client(base_url=running.url, timeout=20)
        if clients.setdefault(worker_of(running, asked(client)), client) is not client:
            client.close()
    for client in clients.values():
        for _ in range(5):
            assert client.post("/inference/chat_completion", json=CHAT).status_code == 200
            before = scraped(url)
    wait_until(lambda: value(scraped(url), CALLS, model="a") == 10)
    assert all(value(scraped(url), CALLS, model="a") == 10 for _ in range(10))
    assert value(scraped(url), "llamastack_workers") == 2
    before = scraped(url)

    for number, worker in enumerate(("worker-1", "worker-2"), start=1):
        [pid] = pids(running, worker)
        os.kill(pid, signal.SIGKILL)
        for client in clients.values():
            client.close()
        while len(pids(running, worker)) < 2:
            try:
                after = scraped(url)
            except httpx.TransportError:
                continue  # it went to the worker that was killed
            assert_no_counter_fell(before, after)
            before = after
        assert httpx.post(f"{running.url}/inference/chat_completion", json=CHAT).status_code == 200
        wait_until(lambda expected=10 + number: value(scraped(url), CALLS, model="a") == expected)
    after = scraped(url)
    assert_no_counter_fell(before, after)
    assert value(after, "llamastack_workers") == 2
    assert value(after, "llamastack_provider_healthy", provider="foo") == 1
    assert value(after, "process_cpu_seconds_total") > 0


def test_counts_begin_at_0_when_the_server_starts_again(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(f"{SAMPLE}server: {{workers: 2}}\n")
    for _ in range(2):
        with running_server(config, home=tmp_path) as running:
            assert httpx.post(f"{running.url}/inference/chat_completion", json=CHAT).status_code == 200
            wait_until(lambda url=running.url: value(scraped(url), CALLS, model="a") == 1)
    [folder] = tmp_path.glob(".llamastack/run-*/metrics")
    assert len({file.name.partition(".")[0] for file in folder.glob("*.json")}) == 1
    assert {file.stat().st_mode & 0o077 for file in folder.iterdir()} == {0}
