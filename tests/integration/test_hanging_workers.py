"""A worker process that hangs is ended and started again; one that is merely busy otherwise is not."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from installed_fakes import install
from running_server import RunningServer, running_server
from worker_processes import asked, pids, runs, says, wait_until, worker_of

# A provider that stops the event loop where a file tells it to.
STUCK = """\
import time
from pathlib import Path
from pydantic import BaseModel

from llamastack.api.models import Model
from llamastack.provider import InlineProviderSpec

class Config(BaseModel):
    folder: Path

class Stuck:
    def __init__(self, folder): self.folder = folder
    async def list_models(self): return [Model(identifier="stuck")]
    async def register_model(self, model): pass
    async def chat_completion(self, **arguments): wait_for_ever()
    async def shutdown(self): wait_while(self.folder / "slow_end")
    completion = embeddings = chat_completion

def wait_for_ever():
    while True:
        time.sleep(1)

def wait_while(file):
    while file.exists():
        time.sleep(0.05)

async def make(config, deps):
    wait_while(config.folder / "slow_start")
    return Stuck(config.folder)

SPEC = InlineProviderSpec(
    api="inference", provider_type="stuck", description="Stuck", config_class="stuck:Config", factory="stuck:make",
)
"""
LIMIT_S = 2.0
CHAT = {"model": "stuck", "messages": [{"role": "user", "content": "Hello"}]}


@contextmanager
def serving(folder: Path, timeout_s: Any = LIMIT_S) -> Iterator[RunningServer]:
    site = folder / "site"
    site.mkdir()
    install(site, "llamastack-stuck", {"llamastack.providers.inference": {"stuck": "stuck:SPEC"}})
    site.joinpath("stuck.py").write_text(STUCK)
    config = folder / "run.yaml"
    config.write_text(
        f'providers: {{inference: [{{provider_id: s, provider_type: stuck, config: {{folder: "{folder}"}}}}]}}\n'
        f"server: {{workers: 2, worker_timeout_s: {timeout_s}, drain_timeout_s: 1}}\n"
    )
    with running_server(config, home=folder, environment={"PYTHONPATH": str(site)}) as running:
        wait_until(lambda: all(pids(running, worker) for worker in ("worker-1", "worker-2")))
        yield running


def test_a_worker_that_hangs_is_replaced(tmp_path: Path) -> None:
    """And says where it hung."""
    with serving(tmp_path) as server:
        client = httpx.Client(base_url=server.url, timeout=20)
        worker = worker_of(server, asked(client))
        (hung,) = pids(server, worker)
        began = time.monotonic()
        with pytest.raises(httpx.TransportError):  # the request that hangs it is lost
            client.post("/inference/chat_completion", json=CHAT)
        assert LIMIT_S * 0.7 < time.monotonic() - began < LIMIT_S + 8
        wait_until(lambda: len(pids(server, worker)) == 2)
        assert says(server, f"{worker} (process {hung}) hangs: no sign of life for {LIMIT_S:g} s")
        assert says(server, f"{worker} (process {hung}) was ended by SIGKILL; starting it again in")
        assert says(server, "in wait_for_ever\n")
        assert not runs(hung)
        for _ in range(10):
            assert httpx.get(f"{server.url}/health").status_code == 200
        other = "worker-1" if worker == "worker-2" else "worker-2"
        assert len(pids(server, other)) == 1


def test_pauses_of_the_parent_and_slow_starts_are_no_hanging(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(LIMIT_S + 1)
        server.process.send_signal(signal.SIGCONT)
        time.sleep(1)
        assert [len(pids(server, worker)) for worker in ("worker-1", "worker-2")] == [1, 1]
        assert not says(server, "hangs")

        (stopped,) = pids(server, "worker-2")
        slow = tmp_path / "slow_start"
        slow.touch()
        os.kill(stopped, signal.SIGSTOP)
        wait_until(lambda: says(server, "starting it again"))
        time.sleep(LIMIT_S + 2)
        slow.unlink()
        wait_until(lambda: len(pids(server, "worker-2")) == 2)
        assert not runs(stopped)
        assert len(pids(server, "worker-1")) == 1
        assert "".join(server.output).count("hangs") == 1
        assert server.stop() == 0


@pytest.mark.parametrize("stopped", [False, True])
def test_the_end_is_not_held_up_by_a_worker_that_hangs(tmp_path: Path, stopped: bool) -> None:
    with serving(tmp_path) as server:
        processes = [pids(server, worker)[0] for worker in ("worker-1", "worker-2")]
        if stopped:
            os.kill(processes[1], signal.SIGSTOP)
        else:
            tmp_path.joinpath("slow_end").touch()
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 15
        assert not any(runs(process) for process in processes)
        assert says(server, "hangs")


def test_the_limit_may_be_off(tmp_path: Path) -> None:
    with serving(tmp_path, 0) as server:
        (stopped,) = pids(server, "worker-2")
        os.kill(stopped, signal.SIGSTOP)
        time.sleep(LIMIT_S)
        assert runs(stopped)
        os.kill(stopped, signal.SIGCONT)
        assert not says(server, "hangs")
        assert server.stop() == 0


def test_a_worker_that_drains_is_not_ended(tmp_path: Path) -> None:
    """Its event loop runs on."""
    with serving(tmp_path) as server:
        client = httpx.Client(base_url=server.url)
        began = threading.Event()

        def body() -> Iterator[bytes]:
            yield b'{"identifier": '
            began.set()
            time.sleep(0.8)
            yield b'"x"}'

        answered: list[int] = []
        asking = threading.Thread(
            target=lambda: answered.append(client.post("/models/unregister", content=body()).status_code)
        )
        asking.start()
        began.wait(10)
        time.sleep(0.2)
        assert server.stop() == 0
        asking.join(10)
        assert answered == [404]
        assert not says(server, "hangs")
