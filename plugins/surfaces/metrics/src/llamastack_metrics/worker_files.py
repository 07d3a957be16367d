"""The counts of the workers of one server, in files of the stack's folder.

Each worker has two files: `<run>.<worker>.json`, its latest snapshot, replaced as a whole, and `<run>.<worker>.alive`,
on which it holds a lock (`flock`) as long as it lives; the kernel releases the lock however the process ends. The run
is the process that started the workers, so that two servers that share a folder are not added up.

The snapshots of workers that have ended stay, because counters must not fall. A worker that starts adds them up in
`<run>.ended.json`, so that their number is bounded, and removes the files of servers that have ended.

All functions block: call them in a thread.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import parent_process
from pathlib import Path

from llamastack.provider.private_files import private_file, private_folder
from llamastack_metrics.file_lock import FileLock, is_held
from llamastack_metrics.snapshots import Snapshot, added_up

_LOGGER = logging.getLogger("llamastack.metrics")
_LOCK = "lock"
_ALIVE = ".alive"
_JSON = ".json"
_ENDED = "ended"
_PORT = "port"
_WAIT_S = 5.0
_PAUSE_S = 0.01


class WorkerFiles:
    """The files of this worker, and those of the others.

    folder: of the stack's metrics. run: as in the names of files, without a dot. most: label sets that are kept of the
    workers that have ended, see `added_up`.
    """

    def __init__(self, folder: Path, run: str, most: int) -> None:
        self._folder = folder
        self._run = run
        self._most = most
        self._name = f"{run}.{os.getpid()}-{time.monotonic_ns():x}"
        self._alive = FileLock(self._path(self._name, _ALIVE))
        self._failed = False

    @property
    def port_lock(self) -> Path:
        """The lock of the worker that has the port of the metrics."""
        return self._path(f"{self._run}.{_PORT}", ".lock")

    def open(self) -> None:
        """This worker lives. Raises OSError, and TimeoutError if another worker keeps the folder locked."""
        private_folder(self._folder)
        with self._locked(alone=True):
            self._clean()
            self._alive.take()

    def write(self, snapshot: Snapshot) -> None:
        """Replace this worker's snapshot. A failure is logged once."""
        at = self._path(self._name, _JSON)
        try:
            _replace(at, snapshot.to_json())
            self._failed = False
        except OSError as error:
            if not self._failed:
                _LOGGER.error("metrics: %s cannot be written: %s", at, error.strerror)  # noqa: TRY400
            self._failed = True

    def all_with(self, own: Snapshot) -> list[Snapshot]:
        """What the workers of this run have counted; of those that have ended, the counters alone.

        The order is the same whichever worker asks, because the sum of floats depends on it.

        own: of this worker. It is written first: if this process dies, the next scrape must not show less.
        Raises TimeoutError if a worker that starts keeps the folder locked for five seconds.
        """
        self.write(own)
        with self._locked(alone=False):
            workers = sorted({self._name, *self._names(self._run)})
            return self._read_all([f"{self._run}.{_ENDED}", *workers], {self._name: own})

    def close(self, last: Snapshot) -> None:
        """This worker ends. last: what it has counted."""
        self.write(last.without_gauges())
        self._alive.release()

    # ---- files -------------------------------------------------------------------------------------------------------

    def _path(self, name: str, ending: str) -> Path:
        return self._folder / f"{name}{ending}"

    def _names(self, run: str | None = None) -> list[str]:
        """The workers of a run, or of all."""
        return sorted(file.stem for file in self._folder.glob(f"{run or '*'}.*{_ALIVE}"))

    def _lives(self, name: str) -> bool:
        return is_held(self._path(name, _ALIVE))

    def _read(self, name: str) -> Snapshot | None:
        path = self._path(name, _JSON)
        try:
            return Snapshot.from_json(path.read_bytes())
        except FileNotFoundError:
            return None  # it has not written one yet
        except (OSError, ValueError) as error:
            _LOGGER.warning("metrics: %s is left out: %s", path, error)
            return None

    def _clean(self) -> None:
        """Add up the workers of this run that have ended, and remove the files of runs without workers."""
        lives = {self._name, *(name for name in self._names() if self._lives(name))}
        runs = {_run_of(name) for name in lives}
        dead = [name for name in self._names(self._run) if name not in lives]
        if dead:
            sums = f"{self._run}.{_ENDED}"
            total = added_up(self._read_all([sums, *dead]), self._most)
            # It names them, so that they do not count twice if this process dies before their files are removed.
            _replace(self._path(sums, _JSON), total.of(dead).to_json())
        kept = {*lives, *(f"{run}.{which}" for run in runs for which in (_ENDED, _PORT))}
        for file in self._folder.iterdir():
            if file.name != _LOCK and file.stem not in kept:
                file.unlink(missing_ok=True)

    def _read_all(self, names: Iterable[str], known: Mapping[str, Snapshot] | None = None) -> list[Snapshot]:
        """The snapshots that are there, without those that the sum of the workers that have ended has already.

        known: those that need not be read, of workers that live.
        """
        known = known or {}
        read = ((name, known.get(name) or self._read(name)) for name in names)
        found = {name: snapshot for name, snapshot in read if snapshot is not None}
        contained = {part for snapshot in found.values() for part in snapshot.parts}
        return [
            snapshot if name in known or self._lives(name) else snapshot.without_gauges()
            for name, snapshot in found.items()
            if name not in contained
        ]

    @contextmanager
    def _locked(self, *, alone: bool) -> Iterator[None]:
        import fcntl  # not on Windows, where a stack without these files still works

        how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        descriptor = os.open(private_file(self._folder / _LOCK), os.O_RDWR)
        until = time.monotonic() + _WAIT_S
        try:
            while True:
                try:
                    fcntl.flock(descriptor, how | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise TimeoutError(f"another process keeps {self._folder / _LOCK} locked") from None
                    time.sleep(_PAUSE_S)
            yield
        finally:
            os.close(descriptor)


def _replace(path: Path, content: bytes) -> None:
    """Write a file that readers see as a whole."""
    temporary = private_file(path.with_suffix(".tmp"))
    temporary.write_bytes(content)
    temporary.replace(path)


def _run_of(name: str) -> str:
    return name.partition(".")[0]


def run_of_workers() -> str | None:
    """What the workers of one server have in common; None in a process that no other Python process has started.

    It is the process that started them: its id, and if known when it started, because ids are used again.
    """
    parent = parent_process()
    if parent is None:
        return None
    try:
        # Field 22, counted from 1 (man 5 proc); the name in the second field may hold spaces and parentheses.
        began = Path(f"/proc/{parent.pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        began = "0"
    return f"{parent.pid}-{began}"
