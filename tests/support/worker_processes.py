"""What tests of several worker processes ask about them."""

from __future__ import annotations

import os
import re
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from running_server import RunningServer


def wait_until(what: Callable[[], Any], timeout_s: float = 15) -> Any:
    """What it gives once that is something."""
    until = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


def pids(server: RunningServer, worker: str) -> list[int]:
    """The processes of one worker that got ready so far."""
    return [int(pid) for pid in re.findall(rf"{worker} serves as process (\d+)\n", "".join(server.output))]


def end(server: RunningServer, how: signal.Signals) -> list[int]:
    """End a server and all its workers by this signal. Returns the processes of the workers."""
    processes = pids(server, r"worker-\d")
    if how is signal.SIGKILL:
        for pid in (server.process.pid, *processes):
            os.kill(pid, how)
        server.process.wait(30)
    else:
        assert server.stop() == 0
    return processes


def says(server: RunningServer, text: str) -> bool:
    return text in "".join(server.output)


def runs(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def asked(client: httpx.Client) -> str:
    """The id of a request."""
    own_id = uuid.uuid4().hex
    assert client.get("/health", headers={"X-Request-ID": own_id}).status_code == 200
    return own_id


def worker_of(server: RunningServer, own_id: str) -> str:
    """Which worker answered a request, by the log."""
    line = wait_until(lambda: next((line for line in list(server.output) if own_id in line), None))
    found = re.search(r"llamastack\.access (worker-\d+) \[", line)
    assert found, line
    return found[1]
