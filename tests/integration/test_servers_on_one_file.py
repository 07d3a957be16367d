"""Two server processes on one store: each serves what the other registers, also if one of them is killed."""

from __future__ import annotations

import functools
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from servers_on_one_file import ServerOnFile, server_on_file
from worker_processes import wait_until

# One process starts the servers.
pytestmark = pytest.mark.xdist_group("workers")
KILLED_AFTER = 60
"""How many calls are acknowledged before a server is killed."""
CALLERS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("one-file")


@pytest.fixture(scope="module")
def one(folder: Path) -> Iterator[ServerOnFile]:
    with server_on_file(folder) as server:
        yield server


def answers(server: ServerOnFile, name: str, status: int) -> bool:
    return server.status_of_call(name) == status


def test_what_one_server_registers_and_unregisters_the_other_serves_and_refuses(
    folder: Path, one: ServerOnFile
) -> None:
    with server_on_file(folder) as two:
        for here, there, name in ((one, two, "x"), (two, one, "y")):
            assert there.status_of_call(name) == 404
            here.register(name)
            wait_until(functools.partial(answers, there, name, 200))
        assert one.listed() == two.listed() == {"x", "y"}
        with pytest.raises(httpx.HTTPStatusError, match="409"):
            two.http.post(
                "models/register", json={"model": {"identifier": "x", "provider_id": "a", "metadata": {"other": 1}}}
            ).raise_for_status()
        for here, there, name in ((one, two, "y"), (two, one, "x")):  # each unregisters what the other registered
            here.unregister(name)
            assert here.status_of_call(name) == 404
            wait_until(functools.partial(answers, there, name, 404))
        assert one.listed() == two.listed() == set()


class Caller:
    """Registers models, and unregisters every third one, until the server is gone."""

    def __init__(self, number: int, server: ServerOnFile, acknowledged: threading.Semaphore) -> None:
        self.number = number
        self.server = server
        self.registered: set[str] = set()
        self.unregistered: set[str] = set()
        self.open = ""
        """The model of the call that was not answered."""
        self.thread = threading.Thread(target=self._call, args=(acknowledged,))
        self.thread.start()

    def _call(self, acknowledged: threading.Semaphore) -> None:
        try:
            for turn in range(10_000):
                self.open = name = f"m{self.number}-{turn}"
                self.server.register(name)
                self.registered.add(name)
                acknowledged.release()
                if turn % 3 == 2:
                    self.open = name = f"m{self.number}-{turn - 1}"
                    self.server.unregister(name)
                    self.registered.remove(name)
                    self.unregistered.add(name)
                    acknowledged.release()
        except httpx.TransportError:
            return


def kept_in(folder: Path) -> set[str]:
    """The models in the file of the store."""
    with closing(sqlite3.connect(folder / "registry.sqlite")) as connection:
        rows = connection.execute("SELECT key FROM records WHERE kind = 'models' AND value IS NOT NULL")
        return {key for (key,) in rows}


def test_the_other_server_serves_what_a_killed_one_acknowledged(folder: Path, one: ServerOnFile) -> None:
    acknowledged = threading.Semaphore(0)
    with server_on_file(folder) as two:
        callers = [Caller(number, two, acknowledged) for number in range(CALLERS)]
        for number in range(KILLED_AFTER):
            assert acknowledged.acquire(timeout=20)
            if number % 10 == 0:
                one.register(f"of-the-other-{number}")
        os.kill(two.running.process.pid, signal.SIGKILL)
        for caller in callers:
            caller.thread.join(20)
            assert not caller.thread.is_alive()
    registered = {f"of-the-other-{number}" for number in range(0, KILLED_AFTER, 10)}
    registered = registered.union(*(caller.registered for caller in callers))
    unregistered = set[str]().union(*(caller.unregistered for caller in callers))
    outcome_is_open = {caller.open for caller in callers}
    kept = kept_in(folder)
    assert len(registered) + len(unregistered) >= KILLED_AFTER / 2
    assert registered - outcome_is_open <= kept <= registered | outcome_is_open
    assert not unregistered & kept
    wait_until(lambda: one.listed() == kept)
    with server_on_file(folder) as again:
        for server in (one, again):
            assert server.listed() == kept
            assert {name for name in kept | unregistered if server.status_of_call(name) == 200} == kept
            assert {server.status_of_call(name) for name in unregistered} <= {404}
        again.register("after-the-restart")
        wait_until(functools.partial(answers, one, "after-the-restart", 200))
