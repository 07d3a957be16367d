"""`llamastack run --workers N`: one process starts N workers, which serve, and keeps them running.

uvicorn's supervisor is not used: it restarts a dead worker without a pause, kills a worker that is silent for a few
seconds, and leaves its workers running when it is killed.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import anyio

from llamastack.provider.backoff import pause_s
from llamastack.provider.commands import CliError, CommandOutput, WrongInputError
from llamastack.stack import Stack
from llamastack.stack.config import LoadedConfig
from llamastack.stack.discovery import default_discovery
from llamastack_server.commands.heartbeat import Heartbeat, Pulse, end_hanging
from llamastack_server.commands.run_stack import SIGNALS, run_stack, serving_line, show_stack
from llamastack_server.logs import set_up_logging
from llamastack_server.plugin_packages import packages_of_plugins
from llamastack_server.settings import ServerConfig
from llamastack_server.uvicorn_server import own_socket, share, url_of

_LOGGER = logging.getLogger("llamastack.workers")
_SPAWN = get_context("spawn")
_SHORTEST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
# A worker that ends after this time did not fail at its start.
_STEADY_AFTER_S = 30.0


@dataclass(frozen=True)
class _Job:
    """The task of a worker.

    config: the run config as the parent read it, so that a worker that starts later serves the same.
    introduces: whether it shows the providers and their progress.
    timeout_s: how long it may be silent, 0 for no limit.
    output: how it writes. start_wait_s: how long it waits for providers; None: as the config says.
    """

    name: str
    config: dict[str, Any]
    folder: Path | None
    introduces: bool
    timeout_s: float
    output: CommandOutput
    start_wait_s: float | None


@dataclass(frozen=True)
class _Ready:
    """A worker accepts requests. lines: shown once all workers do."""

    lines: list[str]


@dataclass(frozen=True)
class _Failed:
    """A worker ends because of an error. lines: as for `CliError`."""

    lines: list[str]
    exit_code: int


# ---- the parent ------------------------------------------------------------------------------------------------------


@dataclass
class _Worker:
    """One worker. tried: set when its first process is ready or has ended. failed: its last process was never ready."""

    name: str
    process: SpawnProcess | None = None
    tried: anyio.Event = field(default_factory=anyio.Event)
    failed: bool = False

    def begin(self, process: SpawnProcess) -> None:
        """Its process has started."""
        self.process = process

    def end(self, *, ready: bool) -> None:
        """Its process has ended."""
        self.failed = not ready

    def serve(self) -> None:
        """Its process accepts requests."""
        self.failed = False
        self.tried.set()


def run_workers(
    config: LoadedConfig, listening: socket.socket, count: int, output: CommandOutput, start_wait_s: float | None
) -> None:
    """Serve with `count` processes until SIGTERM or SIGINT, then wait until their requests have finished.

    Raises CliError with the error of a worker that could not start while no other serves.
    """
    if sys.platform == "win32":
        raise WrongInputError("workers: Windows allows only 1, because it has no signals to stop more")
    shared = share(listening)
    try:
        anyio.run(_run, config, shared, count, output, start_wait_s)
    finally:
        shared.close()


async def _run(
    config: LoadedConfig, shared: socket.socket, count: int, output: CommandOutput, start_wait_s: float | None
) -> None:
    await _Workers(config, shared, count, output, start_wait_s).run()


class _Workers:
    def __init__(
        self,
        config: LoadedConfig,
        shared: socket.socket,
        count: int,
        output: CommandOutput,
        start_wait_s: float | None,
    ) -> None:
        self._config = config
        self._shared = shared
        self._count = count
        self._output = output
        self._start_wait_s = start_wait_s
        self._workers: list[_Worker] = []
        self._lines: list[str] = []
        self._failure: CliError | None = None
        self._serving = anyio.CancelScope()

    async def run(self) -> None:
        # Its process must exist before signals are blocked, because starting it unblocks them.
        resource_tracker.ensure_running()
        with anyio.open_signal_receiver(*SIGNALS) as signals:
            async with anyio.create_task_group() as group:
                group.start_soon(self._obey, signals)
                with self._serving:
                    await self._serve()
                group.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    async def _obey(self, signals: AsyncIterator[signal.Signals]) -> None:
        stopping = False
        async for number in signals:
            if stopping and number == signal.SIGINT:
                # A second Ctrl-C means: stop now.
                for worker in self._workers:
                    if worker.process is not None and worker.process.pid is not None and worker.process.is_alive():
                        os.kill(worker.process.pid, signal.SIGINT)
            stopping = True
            self._serving.cancel()

    async def _serve(self) -> None:
        async with anyio.create_task_group() as group:
            # The first worker starts alone, so that errors are found once and downloads are made once.
            for names in ([1], range(2, self._count + 1)):
                begun = [_Worker(f"worker-{number}") for number in names]
                self._workers += begun
                for worker in begun:
                    group.start_soon(self._keep, worker)
                for worker in begun:
                    await worker.tried.wait()
            self._output.say("\n".join([serving_line(url_of(self._shared), self._count), *self._lines]))

    async def _keep(self, worker: _Worker) -> None:
        """Run a worker, and start it again whenever it ends."""
        failures = 0
        while True:
            began = anyio.current_time()
            answer, ready = await self._run_once(worker)
            worker.end(ready=ready)
            if worker.failed and all(other.failed for other in self._workers):
                self._failure = (
                    _as_error(answer) if answer is not None else CliError(f"{_ended(worker)} before it served")
                )
                self._serving.cancel()
                return
            steady = anyio.current_time() - began > _STEADY_AFTER_S
            failures = 0 if steady else failures + 1
            pause = pause_s(failures, _SHORTEST_PAUSE_S, _LONGEST_PAUSE_S)
            why = f": {'; '.join(answer.lines)}" if answer is not None else ""
            _LOGGER.error("%s%s; starting it again in %g s", _ended(worker), why, pause)
            worker.tried.set()
            await anyio.sleep(pause)

    async def _run_once(self, worker: _Worker) -> tuple[_Failed | None, bool]:
        """Run one process of a worker. Returns the error it ended with, and whether it was ever ready."""
        first = worker is self._workers[0] and not worker.tried.is_set()
        job = self._job(worker.name, introduces=first)
        receiving, sending = _SPAWN.Pipe(duplex=False)
        hearing, beating = _SPAWN.Pipe(duplex=False)
        process = _SPAWN.Process(target=_work, name=worker.name, args=(job, self._shared, sending, beating))
        ready = False
        answer: _Ready | _Failed | None = None
        with receiving, hearing:
            with sending, beating, _signals_held_back():
                process.start()
            worker.begin(process)
            pulse = Pulse(hearing, job.timeout_s) if job.timeout_s else None
            try:
                await anyio.wait_readable(receiving)
                answer = _received(receiving)
                if isinstance(answer, _Ready):
                    ready = True
                    self._lines += answer.lines
                    _LOGGER.info("%s serves as process %d", worker.name, process.pid)
                    worker.serve()
                elif pulse is not None:
                    pulse.expect_end()
                await _end_of(process, pulse)
            finally:
                if process.exitcode is None:
                    with anyio.CancelScope(shield=True):
                        process.terminate()
                        if pulse is not None and not ready:
                            pulse.expect_end()
                        await _end_of(process, pulse)
            if ready:
                answer = _received(receiving)
        return (answer if isinstance(answer, _Failed) else None), ready

    def _job(self, name: str, *, introduces: bool) -> _Job:
        timeout_s = self._config.section("server", ServerConfig).worker_timeout_s or 0.0
        return _Job(
            name,
            dict(self._config.value),
            self._config.folder,
            introduces,
            timeout_s,
            self._output,
            self._start_wait_s,
        )


async def _end_of(process: SpawnProcess, pulse: Pulse | None) -> None:
    """Wait until a process ends. A process that shows no sign of life is ended."""

    async def watch(pulse: Pulse) -> None:
        await pulse.silence()
        assert process.pid is not None
        _LOGGER.error("%s (process %d) hangs: no sign of life for %g s", process.name, process.pid, pulse.limit_s)
        await end_hanging(process.pid)

    async with anyio.create_task_group() as group:
        if pulse is not None:
            group.start_soon(watch, pulse)
        await anyio.wait_readable(process.sentinel)
        group.cancel_scope.cancel()
    process.join()


def _received(receiving: Connection) -> _Ready | _Failed | None:
    try:
        answer: _Ready | _Failed = receiving.recv()
    except (EOFError, OSError):
        return None
    return answer


def _ended(worker: _Worker) -> str:
    process = worker.process
    assert process is not None
    code = process.exitcode or 0
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    return f"{worker.name} (process {process.pid}) {how}"


def _as_error(failed: _Failed) -> CliError:
    wrong_input = failed.exit_code == WrongInputError.exit_code
    return (WrongInputError if wrong_input else CliError)(*failed.lines)


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Blocks signals for the start of a process, which inherits this: signals wait until it has its own handlers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ---- a worker --------------------------------------------------------------------------------------------------------


def _work(job: _Job, shared: socket.socket, sending: Connection, beating: Connection) -> None:
    """The main function of a worker process."""
    threading.Thread(target=_stop_with_parent, name="parent", daemon=True).start()
    heartbeat = Heartbeat(beating, job.timeout_s) if job.timeout_s else None

    async def introduce(stack: Stack, url: str) -> Callable[[], None]:
        lines = await show_stack(stack, url, job.output) if job.introduces else []
        return partial(_say, sending, _Ready(lines))

    try:
        set_up_logging(worker=job.name, packages=packages_of_plugins(default_discovery()))
        report = job.output.progress()
        if job.introduces:
            stack = Stack.from_config(job.config, folder=job.folder, on_progress=report)
        else:
            stack = Stack.from_config(job.config, folder=job.folder)
        beats = heartbeat.start if heartbeat else None
        run_stack(stack, own_socket(shared), job.output, report, introduce, beats, start_wait_s=job.start_wait_s)
    except Exception as error:
        if job.output.debug:
            traceback.print_exception(error)
        failed = job.output.to_cli_error(error)
        _say(sending, _Failed(list(failed.lines), failed.exit_code))
        sys.exit(failed.exit_code)
    finally:
        if heartbeat is not None:
            heartbeat.stop()


def _say(sending: Connection, message: _Ready | _Failed) -> None:
    # The parent has ended, so nobody reads this. The signal to stop follows.
    with suppress(OSError):
        sending.send(message)


def _stop_with_parent() -> None:
    """Stop as after SIGTERM if the parent was killed; else the worker would serve forever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
