"""`llamastack run` with several worker processes."""

from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from installed_fakes import install
from running_server import RunningServer, running_server
from worker_processes import asked, pids, runs, says, wait_until, worker_of

from llamastack.provider import InlineProviderSpec
from llamastack.stack import ConfigError, Stack
from llamastack_cli.group import cli
from llamastack_server.worker_checks import check_workers, is_shared

# One process starts the server.
pytestmark = pytest.mark.xdist_group("workers")

NOBODY = "http://127.0.0.1:1"
SAMPLE = 'providers:\n  inference:\n  - {provider_id: foo, provider_type: "remote::sample", config: {models: [a, b]}}\n'
# A provider that takes its whole process with it where a file tells it to.
FRAGILE = """\
import os
from pathlib import Path
from pydantic import BaseModel
from llamastack.provider import InlineProviderSpec

class Config(BaseModel):
    dies_if: Path

class Fragile:
    async def list_models(self): return []
    async def register_model(self, model): pass
    async def completion(self, **arguments): raise NotImplementedError
    chat_completion = embeddings = completion

async def make(config, deps):
    if config.dies_if.exists():
        os._exit(3)
    return Fragile()

SPEC = InlineProviderSpec(
    api="inference", provider_type="fragile", description="Fragile",
    config_class="fragile:Config", factory="fragile:make",
)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    install(folder, "llamastack-fragile", {"llamastack.providers.inference": {"fragile": "fragile:SPEC"}})
    folder.joinpath("fragile.py").write_text(FRAGILE)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, site: Path) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("workers")
    config = folder / "run.yaml"
    fragile = f'  - {{provider_id: f, provider_type: fragile, config: {{dies_if: "{site}/break"}}}}\n'
    config.write_text(f"{SAMPLE}{fragile}server: {{workers: 2}}\n")
    with running_server(config, home=folder, environment={"PYTHONPATH": str(site)}) as running:
        # The first one serves while the others start.
        wait_until(lambda: all(pids(running, worker) for worker in ("worker-1", "worker-2")))
        yield running


def test_the_output_is_that_of_one_server(server: RunningServer) -> None:
    shown = [line for line in server.output if line.startswith(("inference ", "Serving on "))]
    assert [line.split()[:4] for line in shown[:2]] == [
        ["inference", "foo", "remote::sample", "healthy"],
        ["inference", "f", "fragile", "healthy"],
    ]
    assert shown[2:] == [f"Serving on {server.url}   (2 workers)   (docs: /docs   OpenAI: /v1)\n"]
    wait_until(lambda: "".join(server.output).count("\nTry: curl") == 1)


def test_every_worker_takes_connections(server: RunningServer) -> None:
    ids: list[str] = []
    for _ in range(30):
        with httpx.Client(base_url=server.url, verify=False) as client:
            ids.append(asked(client))
    answered = Counter(worker_of(server, own_id) for own_id in ids)
    assert answered.keys() == {"worker-1", "worker-2"}
    assert min(answered.values()) >= 3


def test_every_worker_looks_at_hosts(server: RunningServer) -> None:
    for _ in range(10):
        with httpx.Client(base_url=server.url) as client:
            assert client.get("/health", headers={"Host": "evil.example"}).status_code == 403


def test_what_one_worker_registers_is_with_all_within_a_second(server: RunningServer) -> None:
    clients: dict[str, httpx.Client] = {}
    while len(clients) < 2:
        client = httpx.Client(base_url=server.url)
        if clients.setdefault(worker_of(server, asked(client)), client) is not client:
            client.close()

    def note(worker: str) -> Any:
        return clients[worker].get("/models/get", params={"identifier": "a"}).json()["metadata"].get("note")

    try:
        model = {"identifier": "a", "provider_id": "foo", "metadata": {"note": "n"}}
        assert clients["worker-1"].post("/models/register", json={"model": model}).status_code == 200
        began = time.monotonic()
        wait_until(lambda: note("worker-2") == "n")
        assert time.monotonic() - began < 5  # half a second, on a machine that has time
        assert clients["worker-2"].post("/models/unregister", json={"identifier": "a"}).status_code == 200
        began = time.monotonic()
        wait_until(lambda: note("worker-1") is None)
        assert time.monotonic() - began < 5  # half a second, on a machine that has time
    finally:
        for client in clients.values():
            client.close()


def test_a_worker_that_dies_comes_back_and_the_other_serves_meanwhile(server: RunningServer, site: Path) -> None:
    (old,) = pids(server, "worker-2")
    broken = site / "break"
    broken.touch()
    try:
        os.kill(old, signal.SIGKILL)
        # The second process, which dies at once, is followed by a longer pause.
        for how in (
            "was ended by SIGKILL; starting it again in 0.5 s",
            "ended with status 3; starting it again in 1 s",
        ):
            wait_until(functools.partial(says, server, f") {how}\n"))
            for _ in range(5):
                assert httpx.get(f"{server.url}/health").status_code == 200
    finally:
        broken.unlink()
    assert f" ERROR llamastack.workers worker-2 (process {old}) was ended by SIGKILL;" in "".join(server.output)
    wait_until(lambda: len(pids(server, "worker-2")) == 2)
    assert not runs(old)
    assert len(pids(server, "worker-1")) == 1
    assert "".join(server.output).count("Serving on ") == 1


def test_a_signal_lets_requests_in_flight_finish_at_every_worker(server: RunningServer) -> None:
    processes = pids(server, "worker-1") + pids(server, "worker-2")[-1:]
    begun = threading.Barrier(9)
    answered: list[int] = []

    def ask() -> None:
        def body() -> Iterator[bytes]:
            yield b'{"model": "a", "messages": [{"role": "user", '
            begun.wait()
            time.sleep(0.7)
            yield b'"content": "hi"}]}'

        answered.append(httpx.post(f"{server.url}/inference/chat_completion", content=body()).status_code)

    asking = [threading.Thread(target=ask) for _ in range(8)]
    for thread in asking:
        thread.start()
    begun.wait(10)
    time.sleep(0.2)  # until the connections are accepted
    assert server.stop() == 0
    for thread in asking:
        thread.join(10)
    assert answered == [200] * 8
    assert not any(runs(pid) for pid in processes)
    assert "Traceback" not in "".join(server.output)


def test_workers_do_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(f"{SAMPLE}server: {{workers: 2}}\n")
    with running_server(config, home=tmp_path) as running:
        processes = wait_until(lambda: len(p := pids(running, r"worker-\d")) == 2 and p)
        running.process.kill()
        wait_until(lambda: not any(runs(pid) for pid in processes), 5)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{running.url}/health")
    assert "Traceback" not in "".join(running.output)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            f'{{provider_id: far, provider_type: remote, config: {{url: "{NOBODY}"}}}}\non_provider_error: fail',
            r"error: provider 'far' \(remote\) is down: connection refused .*",
        ),
        (
            '{provider_id: f, provider_type: fragile, config: {dies_if: "."}}',
            r"error: worker-1 \(process \d+\) ended with status 3 before it served",
        ),
    ],
)
def test_a_start_that_fails_is_one_error(tmp_path: Path, site: Path, settings: str, says: str) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(f"providers:\n  inference:\n  - {settings}\n")
    command = [
        str(Path(sys.executable).with_name("llamastack")),
        "run",
        str(config),
        "--port",
        "0",
        "--workers",
        "2",
        "--start-wait",
        "60",
    ]
    environment = {**os.environ, "LLAMASTACK_HOME": str(tmp_path), "PYTHONPATH": str(site)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = [line for line in done.stderr.splitlines() if "WARNING" not in line]
    assert re.fullmatch(says, line)


# ---- what is refused -------------------------------------------------------------------------------------------------

ALONE = """\
providers:
  inference:
  - {provider_id: foo, provider_type: "remote::sample"}
  memory:
  - {provider_id: server, provider_type: "remote::qdrant", config: {url: "http://127.0.0.1:1"}}
  - {provider_id: docs, provider_type: "remote::qdrant", config: {path: ./qdrant}}
  - {provider_id: notes, provider_type: "remote::sample"}
store: {type: memory}
"""


def test_what_each_worker_would_keep_to_itself_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(ALONE)
    done = CliRunner().invoke(cli, ["run", str(file), "--port", "0", "--workers", "3"])
    assert done.exit_code == 2
    assert done.stdout == ""
    alone = "works in one process only: each of 3 workers would have its own state"
    assert done.stderr.splitlines() == [
        f"error: {file}:8: store.type: 'memory' keeps registrations in one process, and 3 workers must share them; "
        "allowed: sqlite, or one worker",
        f"error: {file}:6: providers.memory[1]: 'docs' (remote::qdrant with 'path') {alone}; allowed: one worker",
        f"error: {file}:7: providers.memory[2]: 'notes' (remote::sample) {alone}; allowed: one worker",
    ]
    assert not (tmp_path / ".llamastack").exists()


@pytest.mark.parametrize(
    ("more", "options", "says"),
    [
        ("", ["--workers", "0"], "error: Invalid value for '--workers': 0 is not in the range x>=1."),
        ("", ["--workers", "-1"], "error: Invalid value for '--workers': -1 is not in the range x>=1."),
        ("", ["--workers", "2", "--reload"], "error: --reload serves with one process, not with 2 workers; add"),
        ("server: {workers: 4}", ["--reload"], "error: --reload serves with one process, not with 4 workers; add"),
        ("server: {workers: 0}", [], ":4: server.workers: Input should be greater than or equal to 1 (is 0)"),
    ],
)
def test_wrong_usage(tmp_path: Path, more: str, options: list[str], says: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(SAMPLE + more)
    done = CliRunner().invoke(cli, ["run", str(file), *options])
    assert done.exit_code == 2
    assert says in done.stderr


def test_one_worker_shares_with_nobody(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(ALONE)
    check_workers(Stack.from_config(file), 1)
    sample = {"provider_id": "f", "provider_type": "remote::sample"}
    with pytest.raises(ConfigError, match="the default store of a stack without a folder keeps"):
        check_workers(Stack.from_config({"providers": {"inference": [sample]}}), 2)


def test_a_store_that_says_nothing_is_shared() -> None:
    class Elsewhere:
        """As packages have it that know nothing of `shared`."""

    assert is_shared(Elsewhere)  # type: ignore[arg-type]


def test_a_name_is_no_tuple_of_names() -> None:
    with pytest.raises(TypeError, match="'path' must be True, False or a tuple of field names"):
        InlineProviderSpec(
            api="memory",
            provider_type="x",
            description="d",
            config_class="a.b:C",
            factory="a.b:f",
            single_process="path",  # type: ignore[arg-type]
        )
