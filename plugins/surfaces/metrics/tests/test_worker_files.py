"""The files of workers, with workers that are processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llamastack_metrics.recorder import Cell
from llamastack_metrics.snapshots import Snapshot, added_up
from llamastack_metrics.worker_files import WorkerFiles

RUN = "100-1"
WORKER = """
import sys
from pathlib import Path
from llamastack_metrics.recorder import Cell
from llamastack_metrics.snapshots import Snapshot
from llamastack_metrics.worker_files import WorkerFiles

files = WorkerFiles(Path(sys.argv[1]), sys.argv[2], 100)
files.open()
gauges = {"llamastack_workers": {(): 1}}
files.write(Snapshot(counters={"llamastack_resource_registrations": {("models",): 5}}, gauges=gauges))
print("ready", flush=True)
sys.stdin.read()
"""


def worker(folder: Path, run: str = RUN) -> subprocess.Popen[bytes]:
    """A process that has registered five models and lives until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, folder, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def shown(files: WorkerFiles) -> tuple[float, float]:
    """Registrations, and workers that live beside this one."""
    total = added_up(files.all_with(Snapshot()))
    registrations = total.counters.get("llamastack_resource_registrations", {})
    return sum(registrations.values()), total.gauges.get("llamastack_workers", {}).get((), 0)


def test_what_the_dead_have_counted_stays_and_their_gauges_go(tmp_path: Path) -> None:
    files = WorkerFiles(tmp_path, RUN, 100)
    files.open()
    first, second = worker(tmp_path), worker(tmp_path)
    assert shown(files) == (10, 2)
    kill(first)
    assert shown(files) == (10, 1)
    third = worker(tmp_path)
    assert shown(files) == (15, 2)
    kill(second)
    kill(third)
    for _ in range(3):
        kill(worker(tmp_path))
    assert shown(files) == (30, 0)
    files.close(Snapshot())
    assert len([*tmp_path.glob("*.json")]) <= 4


MOST = 10


def counted_by(worker: str) -> Snapshot:
    """As many label sets as a worker may have, all of them its own but one."""
    calls: dict[tuple[str, ...], Cell] = {(worker, f"{number}"): [1, 0.1] for number in range(MOST - 1)}
    return Snapshot(calls={**calls, ("all", "0"): [1, 0.1]})


def test_workers_with_many_label_sets_show_the_same_whichever_answers_and_nothing_falls(tmp_path: Path) -> None:
    workers = {name: WorkerFiles(tmp_path, RUN, 10 * MOST) for name in "abc"}
    for name, files in workers.items():
        files.open()
        files.write(counted_by(name))
    totals = [added_up(files.all_with(counted_by(name))).calls for name, files in workers.items()]
    assert totals[0] == totals[1] == totals[2]
    assert totals[0] == {
        ("all", "0"): [3, pytest.approx(0.3)],
        **{(worker, f"{number}"): [1, 0.1] for worker in "abc" for number in range(MOST - 1)},
    }
    workers["b"].close(counted_by("b"))
    assert added_up(workers["a"].all_with(counted_by("a"))).calls == totals[0]
    after = WorkerFiles(tmp_path, RUN, 10 * MOST)
    after.open()  # it adds up those that have ended
    for answers, own in ((after, Snapshot()), (workers["c"], counted_by("c"))):
        calls = added_up(answers.all_with(own)).calls
        assert calls.keys() == totals[0].keys()
        assert all(calls[labels] == pytest.approx(cell) for labels, cell in totals[0].items())
    for files in (workers["a"], workers["c"], after):
        files.close(Snapshot())


def test_another_server_of_the_folder_is_not_added(tmp_path: Path) -> None:
    kill(worker(tmp_path, "7-1"))
    other = worker(tmp_path, "8-1")
    files = WorkerFiles(tmp_path, RUN, 100)
    files.open()
    assert shown(files) == (0, 0)
    assert {file.name.partition(".")[0] for file in tmp_path.glob("*.json")} == {RUN, "8-1"}
    kill(other)
    files.close(Snapshot())


def test_a_worker_that_dies_while_it_adds_up_counts_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(worker(tmp_path))
    kill(worker(tmp_path))

    def die(self: Path, **_: bool) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", die)
        with pytest.raises(KeyboardInterrupt):
            WorkerFiles(tmp_path, RUN, 100).open()
    assert len([*tmp_path.glob("*.json")]) == 2
    files = WorkerFiles(tmp_path, RUN, 100)
    assert shown(files) == (10, 0)
    files.open()
    assert shown(files) == (10, 0)
    files.close(Snapshot())


def test_a_damaged_file_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    alive = worker(tmp_path)
    files = WorkerFiles(tmp_path, RUN, 100)
    files.open()
    [file] = tmp_path.glob("*.json")
    file.write_text("{")
    assert shown(files) == (0, 0)
    assert str(file) in caplog.text
    kill(alive)
    files.close(Snapshot())


def test_a_folder_that_cannot_be_written_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = WorkerFiles(tmp_path, RUN, 100)
    files.open()
    [alive] = tmp_path.glob("*.alive")
    alive.with_suffix(".tmp").mkdir()
    for _ in range(3):
        files.write(Snapshot())
    assert caplog.text.count("cannot be written") == 1
    files.close(Snapshot())
