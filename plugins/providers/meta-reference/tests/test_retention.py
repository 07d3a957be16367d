"""Old traces go, whole and in small steps, and the file gets smaller."""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest
from made_spans import BEGAN_NS, request_of, store_at

from llamastack_provider_meta_reference.telemetry import retention, shared_attributes
from llamastack_provider_meta_reference.telemetry.parts import Part
from llamastack_provider_meta_reference.telemetry.retention import CHECK_EVERY_S, Limits, Tidying
from llamastack_provider_meta_reference.telemetry.trace_store import TraceFilter, TraceStore
from llamastack_telemetry import TimedEvent

MIB = 1024 * 1024
DAY_S = 86_400.0


def filled(path: Path, requests: int, *, from_number: int = 0) -> TraceStore:
    """A file with requests of about a kilobyte each."""
    store = store_at(path)
    add(store, range(from_number, from_number + requests))
    return store


def add(store: TraceStore, numbers: range) -> None:
    for first in range(numbers.start, numbers.stop, 250):
        batch = range(first, min(first + 250, numbers.stop))
        store.add([span for number in batch for span in request_of(number, attributes={"note": "x" * 500})])


def rows(store: TraceStore) -> dict[str, int]:
    return {
        table: store.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("traces", "spans", "events")
    }


def file_bytes(store: TraceStore, path: Path) -> int:
    store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.stat().st_size


def age(store: TraceStore, below: int, seconds: float) -> None:
    """Make the first traces older."""
    store.connection.execute("UPDATE traces SET seen_s = seen_s - ? WHERE id < ?", (int(seconds), below))


def test_traces_that_are_too_old_go_whole(tmp_path: Path) -> None:
    store = filled(tmp_path / "t", 3000)
    ids = [f"{number + 1:032x}" for number in range(3000)]
    store.merge([Part(ids[number], "x", BEGAN_NS, events=[TimedEvent("log", BEGAN_NS, {})]) for number in (10, 2990)])
    age(store, 2500, 8 * DAY_S)
    tidying = Tidying(store.connection, Limits(7 * DAY_S, 512 * MIB))
    steps = 0
    while tidying.step():
        steps += 1
        in_sight = {trace.spans for trace in store.traces(TraceFilter(), None, 5000)[0]}
        assert in_sight <= {2, 3}
    assert steps > 5
    assert rows(store) == {"traces": 501, "spans": 1003, "events": 1}
    assert store.trace(ids[10]) is None
    store.close()


def test_a_file_that_is_too_large_loses_its_oldest_traces_and_gets_no_larger(tmp_path: Path) -> None:
    path = tmp_path / "t"
    store = filled(path, 0)
    tidying = Tidying(store.connection, Limits(7 * DAY_S, 4 * MIB))
    written = 0
    for _ in range(12):
        add(store, range(written, written + 1000))
        written += 1000
        while tidying.is_too_large() and tidying.step():
            pass
        assert file_bytes(store, path) <= 5.2 * MIB  # a thousand requests came since it was looked at
    while tidying.step():
        pass
    assert 2.5 * MIB < file_bytes(store, path) <= 4 * MIB
    kept = rows(store)
    assert kept["spans"] == 2 * kept["traces"]
    numbers = sorted(int(trace.trace_id, 16) - 1 for trace in store.traces(TraceFilter(), None, 100_000)[0])
    assert numbers == list(range(written - kept["traces"], written))
    assert store.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store.close()


def add_kinds(store: TraceStore, numbers: range) -> None:
    """A trace for each number, each of a kind of its own."""
    for number in numbers:
        store.add([replace(span, shared_attributes={"kind": f"{number}"}) for span in request_of(number)])


def kinds(store: TraceStore) -> list[int]:
    found = store.connection.execute("SELECT attributes FROM shared_attributes ORDER BY id").fetchall()
    return [int(json.loads(text)["kind"]) for (text,) in found]


def kinds_of(store: TraceStore, number: int) -> list[object]:
    found = store.spans(request_of(number)[0].trace_id, None, 10)
    assert found is not None
    return [span.attributes["kind"] for span, _ in found[0]]


def test_what_spans_share_goes_after_the_last_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_attributes, "SLACK", 10)
    monkeypatch.setattr(retention, "SLACK", 10)
    store, other = store_at(tmp_path / "t"), store_at(tmp_path / "t")
    add_kinds(store, range(100))
    age(store, 81, 8 * DAY_S)
    tidying = Tidying(other.connection, Limits(7 * DAY_S, 512 * MIB))
    while tidying.step():
        pass
    assert rows(store)["traces"] == 20
    assert kinds(store) == list(range(60, 100))  # a row may be in use for twice the slack
    shared = {"kind": "0"}  # it is gone: it gets a new row
    for number in (101, 102):
        store.add([replace(span, shared_attributes=shared) for span in request_of(number)])
        assert kinds_of(store, number) == ["0", "0"]
    assert kinds(store)[-1] == 0
    for opened in (store, other):
        opened.close()


def test_a_kind_that_is_used_again_and_again_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_attributes, "SLACK", 10)
    monkeypatch.setattr(retention, "SLACK", 10)
    store = store_at(tmp_path / "t")
    shared = {"kind": "7"}
    for number in range(200):
        store.add([replace(span, shared_attributes=shared) for span in request_of(number)])
    age(store, 200, 8 * DAY_S)
    tidying = Tidying(store.connection, Limits(7 * DAY_S, 512 * MIB))
    while tidying.step():
        pass
    assert kinds(store) == [7]
    assert kinds_of(store, 199) == ["7", "7"]
    store.close()


def test_the_number_of_kinds_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_attributes, "MOST_ROWS", 5)
    store = store_at(tmp_path / "t")
    add_kinds(store, range(20))
    assert kinds(store) == list(range(5))
    for number in range(20):
        assert kinds_of(store, number) == [f"{number}"] * 2
    store.close()


def test_kinds_with_long_names_leave_room_for_traces(tmp_path: Path) -> None:
    store = store_at(tmp_path / "t")
    tidying = Tidying(store.connection, Limits(7 * DAY_S, MIB))
    for number in range(400):
        shared = {"kind": f"{number}", "name": "\u00e9" * 2000}
        store.add([replace(span, shared_attributes=shared) for span in request_of(number)])
        while tidying.is_too_large() and tidying.step():
            pass
    assert 0 < len(kinds(store)) < 40
    while tidying.step():
        pass
    assert not tidying.is_too_large()
    assert rows(store)["traces"] > 20
    assert kinds_of(store, 399) == ["399"] * 2
    store.close()


def test_space_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "t"
    store = filled(path, 8000)
    before = file_bytes(store, path)
    age(store, 10**6, 8 * DAY_S)
    tidying = Tidying(store.connection, Limits(7 * DAY_S, 512 * MIB))
    steps = 0
    while tidying.step():
        steps += 1
    assert steps < 100  # a thousand rows, or a megabyte, in each
    assert before > 7 * MIB
    assert rows(store) == {"traces": 0, "spans": 0, "events": 0}
    assert file_bytes(store, path) < MIB
    store.close()


def test_a_trace_with_very_many_spans_goes_in_steps(tmp_path: Path) -> None:
    store = store_at(tmp_path / "t")
    store.merge([Part("t", f"{number}", BEGAN_NS, "x") for number in range(5000)])
    add(store, range(1))
    age(store, 2, 8 * DAY_S)
    tidying = Tidying(store.connection, Limits(7 * DAY_S, 512 * MIB))
    assert tidying.step()
    assert store.trace("t") is None
    assert rows(store)["spans"] == 5002
    assert tidying.step()
    assert rows(store)["spans"] == 4002
    add(store, range(1, 2))  # what comes meanwhile stays
    while tidying.step():
        pass
    assert rows(store) == {"traces": 2, "spans": 4, "events": 0}
    store.close()


def test_no_more_goes_than_must(tmp_path: Path) -> None:
    """Its spans leave slowly, and the file stays large meanwhile: traces behind it do not go for that."""
    store = store_at(tmp_path / "t")
    store.merge([Part("t", f"{number}", BEGAN_NS, "x", attributes={"note": "x" * 500}) for number in range(5000)])
    add(store, range(2000))
    tidying = Tidying(store.connection, Limits(7 * DAY_S, 5 * MIB))
    assert tidying.is_too_large()
    while tidying.step():
        pass
    assert rows(store) == {"traces": 2000, "spans": 4000, "events": 0}
    store.close()


def test_numbers_of_traces_are_not_used_again(tmp_path: Path) -> None:
    """Else the spans of a new trace would be removed with those of an old one."""
    store = filled(tmp_path / "t", 600)
    age(store, 10**6, 8 * DAY_S)
    tidying = Tidying(store.connection, Limits(7 * DAY_S, 512 * MIB))
    while store.connection.execute("SELECT count(*) FROM traces").fetchone()[0]:
        assert tidying.step()
    add(store, range(600, 601))
    while tidying.step():
        pass
    assert rows(store) == {"traces": 1, "spans": 2, "events": 0}
    store.close()


def test_one_process_tidies_up_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = [store_at(tmp_path / "t") for _ in range(2)]
    limits = Limits(7 * DAY_S, 512 * MIB)
    one, other = (Tidying(store.connection, limits) for store in stores)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    assert one.claim(now=False)
    assert not other.claim(now=True)  # the first is still at it
    while one.step():
        pass
    assert not other.claim(now=False)  # it is not time
    assert other.claim(now=True)
    now += retention._LEASE_S + 1  # the second has died meanwhile
    assert not one.claim(now=False)
    assert one.claim(now=True)
    now += CHECK_EVERY_S + 1
    assert other.claim(now=False)
    now -= 10 * DAY_S  # the clock was set back
    assert one.claim(now=False)
    for store in stores:
        store.close()


def test_a_writer_never_waits_long_for_a_step(tmp_path: Path) -> None:
    """Each step is a transaction of its own, of a bounded number of rows."""
    store = filled(tmp_path / "t", 4000)
    age(store, 10**6, 8 * DAY_S)
    changes: list[int] = []
    tidying = Tidying(store.connection, Limits(7 * DAY_S, 512 * MIB))
    more = True
    while more:
        before = store.connection.total_changes
        more = tidying.step()
        changes.append(store.connection.total_changes - before)
        assert not store.connection.in_transaction
    assert max(changes) <= 2 * retention._ROWS_A_STEP + 1
    store.close()


def test_a_locked_file_is_an_error_and_nothing_is_removed(tmp_path: Path) -> None:
    store = filled(tmp_path / "t", 10)
    other = store_at(tmp_path / "t")
    other.connection.execute("BEGIN IMMEDIATE")
    store.connection.execute("PRAGMA busy_timeout = 1")
    age_ago = Tidying(store.connection, Limits(-DAY_S, 512 * MIB))
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        age_ago.step()
    other.connection.execute("ROLLBACK")
    assert rows(store)["traces"] == 10
    store.close()
    other.close()
