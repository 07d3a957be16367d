"""Agents and sessions that `deps.kv` keeps: real workers find those of each other, also after a restart."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from running_server import RunningServer, running_server
from worker_processes import asked, end, pids, wait_until, worker_of

pytestmark = pytest.mark.xdist_group("workers")
AGENT = {"model": "sample-echo", "instructions": "x", "enable_session_persistence": True}
RUN = """\
providers:
  inference:
  - {provider_id: echo, provider_type: "remote::sample"}
  agents:
  - {provider_id: a, provider_type: "remote::sample"}
  - {provider_id: b, provider_type: "remote::sample"}
server: {workers: 2}
"""


@contextmanager
def two_workers(folder: Path) -> Iterator[tuple[RunningServer, list[httpx.Client]]]:
    """The server, and a client at each of its workers."""
    config = folder / "run.yaml"
    config.write_text(RUN)
    with running_server(config, home=folder) as running, ExitStack() as opened:
        wait_until(lambda: all(pids(running, worker) for worker in ("worker-1", "worker-2")))
        clients: dict[str, httpx.Client] = {}
        while len(clients) < 2:
            client = opened.enter_context(httpx.Client(base_url=running.url, timeout=20))
            clients.setdefault(worker_of(running, asked(client)), client)
        yield running, [clients["worker-1"], clients["worker-2"]]


def post(client: httpx.Client, path: str, **body: Any) -> Any:
    answer = client.post(f"/agents/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def take_turn(client: httpx.Client, ids: dict[str, str], text: str) -> Any:
    return post(client, "turn/create", **ids, messages=[{"role": "user", "content": text}])


def turns(client: httpx.Client, ids: dict[str, str]) -> Any:
    return post(client, "session/get", **ids)["turns"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_agents_of_two_instances_are_found_by_the_other_worker_and_after_a_restart(
    tmp_path: Path, how: signal.Signals
) -> None:
    sessions: list[dict[str, str]] = []
    taken: list[list[Any]] = []
    with two_workers(tmp_path) as (running, (first, second)):
        for instance in ("a", "b"):
            ids = post(first, "create", agent_config=AGENT, provider_id=instance)
            ids |= post(second, "session/create", **ids, session_name=f"of {instance}")
            sessions.append(ids)
            taken.append([take_turn(client, ids, f"{instance} {n}") for n, client in enumerate((first, second, first))])
            assert turns(first, ids) == turns(second, ids) == taken[-1]
        end(running, how)
    with two_workers(tmp_path) as (running, clients):
        for ids, known in zip(sessions, taken, strict=True):
            for client in clients:
                assert turns(client, ids) == known
                known.append(take_turn(client, ids, "after"))
            assert turns(clients[0], ids) == known
        (of_a, of_b) = sessions
        mixed = clients[0].post("/agents/session/get", json={**of_a, "session_id": of_b["session_id"]})
        assert mixed.status_code == 404  # an instance has only its own sessions
        post(clients[0], "delete", agent_id=of_a["agent_id"])
        assert clients[1].post("/agents/session/get", json=of_a).status_code == 404
        assert turns(clients[1], of_b) == taken[1]
        assert "Traceback" not in "".join(running.output)
