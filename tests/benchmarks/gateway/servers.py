"""Servers as processes of their own: started, waited for, weighed, stopped."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

HOST = "127.0.0.1"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_POLL_S = 0.002
_STOP_S = 10.0
_LOG_TAIL = 6  # lines


class ServerError(Exception):
    """A server did not start, or answered something else than it should."""


@dataclass(frozen=True)
class Request:
    """A request, and what its reply must hold to count as answered."""

    method: str
    path: str
    body: bytes | None = None
    expected: tuple[str, ...] = ()
    events: int = 0  # that its stream has at least
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)


@dataclass(frozen=True)
class Launch:
    """How a server is started: its command, what its environment has beside this process's own, and its first 200."""

    command: list[str]
    ready: Request
    env: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 30.0


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def raise_file_limit() -> None:
    """Allow as many open files as may be had, here and in every server started from here."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def ask(port: int, request: Request, timeout_s: float = 30.0) -> str:
    """Send one request over a connection of its own and return the body of its reply.

    Raises ServerError where the reply is not a 200 with all that is expected of it, OSError where there is none.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    try:
        connection.request(request.method, request.path, request.body, dict(request.headers))
        reply = connection.getresponse()
        text = reply.read().decode()
    except http.client.HTTPException as error:
        raise ServerError(f"{request.method} {request.path}: {error!r}") from error
    finally:
        connection.close()
    if reply.status != 200:
        raise ServerError(f"{request.method} {request.path}: status {reply.status}, {text[:200]}")
    for part in request.expected:
        if part not in text:
            raise ServerError(f"{request.method} {request.path}: the reply lacks {part!r}: {text[:200]}")
    found = text.count("data: ")
    if found < request.events:
        raise ServerError(f"{request.method} {request.path}: {found} events instead of {request.events}: {text[:200]}")
    return text


class Server:
    """One server process with its children; a context manager that stops them all."""

    def __init__(self, launch: Launch, port: int, log: Path) -> None:
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self.ready_s = 0.0
        self._launch = launch
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        """Raises ServerError where it is not ready within its time."""
        started = time.perf_counter()
        with self._log.open("wb") as log:
            # A POSIX session of its own tells its processes from all others, and keeps Ctrl-C for this one.
            self._process = subprocess.Popen(
                self._launch.command,
                env={**os.environ, **self._launch.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait(started)
        except BaseException:
            self.stop()
            raise
        self.ready_s = time.perf_counter() - started
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait(self, started: float) -> None:
        assert self._process is not None
        while True:
            try:
                ask(self.port, self._launch.ready)
            except (OSError, ServerError) as error:
                if self._process.poll() is not None:
                    raise ServerError(f"ended with {self._process.returncode}: {self._log_tail()}") from None
                if time.perf_counter() - started > self._launch.timeout_s:
                    raise ServerError(
                        f"not ready after {self._launch.timeout_s:.0f} s ({error}): {self._log_tail()}"
                    ) from None
                time.sleep(_POLL_S)
            else:
                return

    def _log_tail(self) -> str:
        lines = [line.strip() for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return " / ".join(lines[-_LOG_TAIL:]) or "its log is empty"

    def cpu_s(self) -> float:
        """CPU time that its living processes have taken so far, in seconds."""
        return sum(float(stat[11]) + float(stat[12]) for stat in self._stats()) / _TICKS_PER_S

    def rss_bytes(self) -> int:
        """Resident memory of its processes, in bytes; pages that they share count once for each."""
        return sum(int(stat[21]) for stat in self._stats()) * _PAGE_BYTES

    def _stats(self) -> list[list[str]]:
        """The fields of /proc/PID/stat from the third on, of each process in its session."""
        assert self._process is not None
        stats = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                # The second field is the command's name in brackets, which may hold spaces.
                fields = path.read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[3] == str(self._process.pid):
                stats.append(fields)
        return stats

    def stop(self) -> None:
        """End it and its children; those that do not go are killed."""
        if self._process is None:
            return
        process, self._process = self._process, None
        _signal_group(process.pid, signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _signal_group(process.pid, signal.SIGKILL)
            process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
