"""Load on a server: by wrk where it is installed, else by an own loader, slower than the fastest contenders."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import anyio
from raw_http import Connection, ReplyError, body_of, request_bytes
from servers import HOST, Request

WRK = shutil.which("wrk")
_SCRIPT = Path(__file__).with_name("wrk.lua")
_TIMEOUT_S = 30
_STOPPING_S = 60


class LoadError(Exception):
    """The loader itself failed."""


@dataclass(frozen=True)
class Load:
    """What a run came to. `errors` counts by kind the replies that do not count as answered."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    received_bytes: int
    errors: dict[str, int]

    @property
    def per_s(self) -> float:
        return self.requests / self.seconds

    def complaint(self) -> str | None:
        """The errors in words, where there were any."""
        found = {kind: count for kind, count in self.errors.items() if count}
        if not self.requests:
            return "no request was answered" + (f": {found}" if found else "")
        return f"errors beside {self.requests} answered: {found}" if found else None


def load(
    port: int, request: Request, *, connections: int, seconds: float, folder: Path, ending: str | None = None
) -> Load:
    """Send the request again and again over so many connections, each waiting for its reply before the next.

    `ending` is what each reply's body must end with; looking at it takes wrk about as much CPU time again. Raises
    LoadError.
    """
    if WRK is not None:
        return _wrk(WRK, port, request, connections, seconds, folder, ending)
    return anyio.run(_own, port, request, connections, seconds, ending, backend_options={"use_uvloop": True})


def _wrk(
    command: str, port: int, request: Request, connections: int, seconds: float, folder: Path, ending: str | None
) -> Load:
    body = folder / "body.json"
    body.write_bytes(request.body or b"")
    env = {"BENCH_BODY": str(body)} | ({"BENCH_END": ending} if ending else {})
    duration = max(1, round(seconds))  # wrk takes whole seconds
    arguments = ["-t1", f"-c{connections}", f"-d{duration}s", f"--timeout={_TIMEOUT_S}s", f"-s{_SCRIPT}"]
    for name, value in request.headers:
        arguments += ["-H", f"{name}: {value}"]
    try:
        result = subprocess.run(
            [command, *arguments, f"http://{HOST}:{port}{request.path}"],
            env=env,
            check=False,
            capture_output=True,
            text=True,
            timeout=duration + _STOPPING_S,
        )
    except subprocess.TimeoutExpired:
        raise LoadError(f"wrk did not end {_STOPPING_S} s after its time") from None
    for line in result.stdout.splitlines():
        if line.startswith("BENCH "):
            found = json.loads(line.removeprefix("BENCH "))
            return Load(**found)
    raise LoadError(f"wrk ended with {result.returncode}: {result.stderr.strip() or result.stdout.strip()}")


async def _own(port: int, request: Request, connections: int, seconds: float, ending: str | None) -> Load:
    took: list[float] = []
    received = 0
    errors = {"broken": 0, "unfinished": 0}
    data = request_bytes(request, port)
    expected = ending.encode() if ending else None
    started = time.perf_counter()
    end = started + seconds

    async def one_connection() -> None:
        nonlocal received
        while time.perf_counter() < end:
            try:
                async with Connection(port) as connection:
                    while (began := time.perf_counter()) < end:
                        await connection.send(data)
                        reply = await connection.whole()
                        took.append(time.perf_counter() - began)
                        received += len(reply)
                        if expected is not None and not body_of(reply).endswith(expected):
                            errors["unfinished"] += 1
            except (OSError, ReplyError):
                errors["broken"] += 1
                await anyio.sleep(0.01)

    async with anyio.create_task_group() as tasks:
        for _ in range(connections):
            tasks.start_soon(one_connection)
    seconds = time.perf_counter() - started
    if len(took) < 2:
        return Load(len(took), seconds, 0, 0, received, errors)
    percentiles = statistics.quantiles(took, n=100)
    return Load(len(took), seconds, percentiles[49] * 1000, percentiles[98] * 1000, received, errors)
