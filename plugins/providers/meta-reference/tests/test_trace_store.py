"""The SQLite file of traces: what is kept, old and foreign files, and what has no room."""

from __future__ import annotations

import multiprocessing
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_spans import BEGAN_NS, SECOND_NS, request_of, store_at

from llamastack_provider_meta_reference.telemetry import schema
from llamastack_provider_meta_reference.telemetry.parts import KeptTrace, Part, Root
from llamastack_provider_meta_reference.telemetry.trace_store import MOST_EVENTS, Position, TraceFilter, TraceStore
from llamastack_telemetry import FinishedSpan, TimedEvent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "traces.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[TraceStore]:
    opened = store_at(path)
    yield opened
    opened.close()


def only(store: TraceStore) -> KeptTrace:
    [trace], more = store.traces(TraceFilter(), None, 10)
    assert not more
    return trace


def test_a_trace_is_the_sum_of_its_spans(store: TraceStore) -> None:
    call, request = request_of(0, attributes={"llamastack.cost": 0.25})
    failed = FinishedSpan(call.trace_id, "f" * 16, call.span_id, "x", "internal", BEGAN_NS, BEGAN_NS, "error", "why")
    store.add([call, failed])
    assert only(store).name == "x"  # the earliest, as long as the root is not there
    store.add([request])
    trace = only(store)
    assert (trace.name, trace.root) == (request.name, Root(0, BEGAN_NS, request.span_id))
    assert (trace.start_ns, trace.end_ns) == (BEGAN_NS, BEGAN_NS + 3 * SECOND_NS)
    assert (trace.spans, trace.errors) == (3, 1)
    assert (trace.input_tokens, trace.output_tokens, trace.cost) == (3, 5, (0.25, ""))


def test_costs_are_added_up_in_one_currency_alone(store: TraceStore) -> None:
    euros = {"llamastack.cost": 0.25, "llamastack.cost.currency": "EUR"}
    call, request = request_of(0, attributes=euros)
    again = replace(call, span_id="a" * 16)
    store.add([call, request])
    store.add([again])
    assert only(store).cost == (0.5, "EUR")
    start = Part(call.trace_id, "b", BEGAN_NS, "b", attributes={**euros, "llamastack.cost.currency": "USD"})
    store.merge([start])
    assert only(store).cost is None
    store.merge([Part(call.trace_id, "b", BEGAN_NS, end_ns=BEGAN_NS, status="ok", attributes=euros)])
    assert only(store).cost == (0.75, "EUR")  # what the end says goes before what the start says


def test_many_currencies_of_a_client_take_bounded_room(store: TraceStore) -> None:
    for number in range(100):
        attributes = {"llamastack.cost": 1, "llamastack.cost.currency": f"{number}" * 9}
        store.merge([Part("t", f"{number}", BEGAN_NS, "x", attributes=attributes)])
    assert only(store).cost is None
    assert len(only(store).costs or "") < 400


def test_a_span_that_comes_twice_is_kept_once(store: TraceStore) -> None:
    spans = request_of(0)
    spans[0].events.append(TimedEvent("retry", BEGAN_NS, {"number": 1}))
    for batch in (spans, spans[:1], [*spans, *request_of(1), *request_of(1)]):
        store.add(batch)
    (newer, older), _ = store.traces(TraceFilter(), None, 10)
    assert [(trace.spans, trace.input_tokens, trace.output_tokens) for trace in (newer, older)] == [(2, 3, 5)] * 2
    found = store.spans(spans[0].trace_id, None, 10)
    assert found is not None
    assert [(span.span_id, len(events)) for span, events in found[0]] == [(spans[1].span_id, 0), (spans[0].span_id, 1)]


def shared_spans(number: int, shared: dict[str, Any]) -> list[FinishedSpan]:
    return [replace(span, shared_attributes=shared) for span in request_of(number)]


def attributes_in(store: TraceStore, number: int) -> list[dict[str, object]]:
    found = store.spans(request_of(number)[0].trace_id, None, 10)
    assert found is not None
    return [span.attributes for span, _ in found[0]]


def test_attributes_that_spans_share_are_kept_once(store: TraceStore, path: Path) -> None:
    shared: dict[str, Any] = {"api": "inference", "n": 1}
    for number in range(3):
        store.add(shared_spans(number, shared))
    other = store_at(path)
    other.add(shared_spans(3, dict(shared)))
    other.close()
    assert store.connection.execute("SELECT count(*) FROM shared_attributes").fetchone() == (1,)
    for number in range(4):
        assert all(found.items() >= shared.items() for found in attributes_in(store, number))
    # A span that comes again, and what a client adds, leave them as they are.
    store.add(shared_spans(2, shared))
    call = request_of(2)[0]
    store.merge([Part(call.trace_id, call.span_id, BEGAN_NS, events=[TimedEvent("log", BEGAN_NS, {})])])
    assert all(found.items() >= shared.items() for found in attributes_in(store, 2))


def test_shared_attributes_are_written_again_after_a_write_that_failed(store: TraceStore) -> None:
    first, second = {"api": "a"}, {"api": "b"}
    store.connection.execute("CREATE TEMP TRIGGER refuse BEFORE INSERT ON traces BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(sqlite3.IntegrityError, match="no"):
        store.add(shared_spans(0, first))
    store.connection.execute("DROP TRIGGER refuse")
    store.add(shared_spans(1, second))
    store.add(shared_spans(0, first))
    assert [found["api"] for found in attributes_in(store, 0)] == ["a", "a"]
    assert [found["api"] for found in attributes_in(store, 1)] == ["b", "b"]


def test_text_that_is_not_unicode_is_kept_with_the_others(store: TraceStore) -> None:
    odd = request_of(1)[0]
    odd.name, odd.own_attributes = "a\ud800b", {"x": "\udfff", "y\ud800": ["\ud800"], "z": float("nan")}
    store.add([*request_of(0), odd])
    found = store.spans(odd.trace_id, None, 10)
    assert found is not None
    [(span, _)] = found[0]
    assert (span.name, span.attributes) == ("a?b", {"x": "?", "y?": ["?"], "z": "NaN"})
    assert store.trace(request_of(0)[0].trace_id) is not None


def test_a_client_adds_to_a_span_of_the_stack_before_it_arrives(store: TraceStore) -> None:
    call, request = request_of(0)
    line = Part(call.trace_id, call.span_id, BEGAN_NS, events=[TimedEvent("log", BEGAN_NS, {"message": "hi"})])
    assert store.merge([line]) == [True]
    assert only(store).root.rank == 2
    store.add([call, request])
    trace = only(store)
    assert (trace.spans, trace.input_tokens, trace.name) == (2, 3, request.name)
    found = store.spans(call.trace_id, None, 10)
    assert found is not None
    assert [(span.name, [event.name for event in events]) for span, events in found[0]] == [
        (request.name, []),
        (call.name, ["log"]),
    ]


def test_a_span_has_room_for_so_many_events(store: TraceStore) -> None:
    line = Part("t", "s", BEGAN_NS, events=[TimedEvent("log", BEGAN_NS, {})])
    assert store.merge([line] * (MOST_EVENTS + 1)) == [True] * MOST_EVENTS + [False]
    other = Part("t", "other", BEGAN_NS, events=[TimedEvent("log", BEGAN_NS, {})])
    assert store.merge([line, other]) == [False, True]


def test_pages_of_traces_do_not_shift(store: TraceStore) -> None:
    for number in range(10):
        store.add(request_of(number, at_s=number // 2))  # two begin at the same moment
    page, more = store.traces(TraceFilter(), None, 4)
    assert more
    store.add(request_of(20, at_s=30))
    last = Position(page[-1].start_ns, page[-1].id)
    rest, more = store.traces(TraceFilter(), last, 10)
    assert not more
    assert [int(trace.trace_id, 16) - 1 for trace in page + rest] == list(range(9, -1, -1))


def test_lists_of_traces_need_no_scan(store: TraceStore) -> None:
    store.add(request_of(0))
    asked: list[str] = []
    store.connection.set_trace_callback(asked.append)
    store.traces(TraceFilter(since_ns=1, failed=True, name="a"), Position(2**62, 9), 10)
    store.connection.set_trace_callback(None)
    plan = " ".join(row[3] for row in store.connection.execute(f"EXPLAIN QUERY PLAN {asked[0]}"))
    assert "SEARCH traces USING INDEX failed_traces_by_start" in plan
    assert "TEMP B-TREE" not in plan


def test_only_its_owner_can_read_the_file(store: TraceStore, path: Path) -> None:
    store.add(request_of(0))
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"traces.sqlite": 0o600, "traces.sqlite-wal": 0o600, "traces.sqlite-shm": 0o600}


# ---- files that cannot be used -------------------------------------------------------------------------------------


def run_sql(path: Path, script: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.executescript(script)
    connection.close()


def test_a_file_of_something_else_is_refused_and_left_alone(path: Path) -> None:
    run_sql(path, "CREATE TABLE notes (text); INSERT INTO notes VALUES ('mine')")
    before = path.read_bytes()
    with pytest.raises(OSError, match=r"traces.sqlite cannot be used: it is a SQLite file of something else"):
        store_at(path)
    assert path.read_bytes() == before


def test_a_file_of_a_newer_version_is_refused(path: Path) -> None:
    store_at(path).close()
    run_sql(path, "PRAGMA user_version = 7")
    with pytest.raises(OSError, match=r"a newer version of the provider wrote it: its tables have version 7, and 3 is"):
        store_at(path)


def test_a_damaged_file_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(OSError, match=r"the file is damaged or no SQLite file"):
        store_at(path)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"cannot be used: .*Is a directory"):
        store_at(tmp_path)


def test_an_older_file_is_upgraded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = store_at(path)
    older.add(request_of(0))
    older.close()
    monkeypatch.setattr(schema, "VERSION", 5)
    upgrades = {3: "ALTER TABLE upkeep ADD COLUMN a INTEGER", 4: "ALTER TABLE upkeep ADD COLUMN b; CREATE TABLE c (d)"}
    monkeypatch.setattr(schema, "UPGRADES", upgrades)
    newer = store_at(path)
    assert newer.connection.execute("SELECT a, b, (SELECT count(*) FROM c) FROM upkeep").fetchone() == (None, None, 0)
    assert newer.connection.execute("PRAGMA user_version").fetchone() == (5,)
    assert only(newer).spans == 2
    newer.close()


def test_a_process_goes_on_where_a_newer_one_adds_columns(path: Path) -> None:
    older = store_at(path)
    older.add(request_of(0))
    for table in ("traces", "spans", "shared_attributes", "events", "upkeep"):
        run_sql(path, f"ALTER TABLE {table} ADD COLUMN later INTEGER")
    shared = {"kind": "new"}
    older.add([replace(span, shared_attributes=shared) for span in request_of(1)])
    older.add(request_of(1))  # they are there: they are merged
    event = TimedEvent("log", BEGAN_NS, {})
    assert older.merge([Part(request_of(1)[0].trace_id, "x", BEGAN_NS, events=[event])]) == [True]
    found = older.spans(request_of(1)[0].trace_id, None, 10)
    assert found is not None
    assert sorted(len(events) for _, events in found[0]) == [0, 0, 1]
    older.close()


def test_a_file_whose_costs_have_no_currencies_is_upgraded(path: Path) -> None:
    older = store_at(path)
    older.add(request_of(0))
    older.close()
    for statement in (
        "ALTER TABLE traces RENAME COLUMN costs TO unused",
        "ALTER TABLE traces ADD COLUMN cost REAL",
        "UPDATE traces SET cost = 0.25",
        "ALTER TABLE spans DROP COLUMN shared",
        "DROP TABLE shared_attributes",
        "PRAGMA user_version = 1",
    ):
        run_sql(path, statement)
    newer = store_at(path)
    assert only(newer).cost == (0.25, "")
    newer.add(request_of(1, attributes={"llamastack.cost": 1, "llamastack.cost.currency": "EUR"}))
    trace = newer.trace(request_of(1)[0].trace_id)
    assert trace is not None
    assert trace.cost == (1, "EUR")
    newer.close()


def test_an_upgrade_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store_at(path).close()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "VERSION", 4)
        patch.setattr(schema, "UPGRADES", {3: "CREATE TABLE c (d); CREATE TABLE spans (x)"})
        with pytest.raises(OSError, match="table spans already exists"):
            store_at(path)
    store = store_at(path)
    assert store.connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'c'").fetchone() == (0,)
    store.close()


def test_a_full_disk_loses_nothing_that_is_kept(store: TraceStore) -> None:
    store.add(request_of(0))
    pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
    store.connection.execute(f"PRAGMA max_page_count = {pages + 2}")  # SQLite then says that the disk is full
    many = [span for number in range(1, 200) for span in request_of(number)]
    with pytest.raises(sqlite3.OperationalError, match="full"):
        store.add(many)
    assert only(store).spans == 2
    store.connection.execute("PRAGMA max_page_count = 100000")
    store.add(many)
    assert len(store.traces(TraceFilter(), None, 1000)[0]) == 200


# ---- several processes ---------------------------------------------------------------------------------------------


def _open_and_add(path: Path, number: int) -> None:
    store = store_at(path)
    for each in range(20):
        store.add(request_of(20 * number + each))
        store.add(request_of(each))  # all add the same ones, too
    store.close()


def test_several_processes_share_a_new_file(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_open_and_add, args=(path, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    store = store_at(path)
    traces, _ = store.traces(TraceFilter(), None, 1000)
    assert {(trace.spans, trace.input_tokens) for trace in traces} == {(2, 3)}
    assert len(traces) == 80
    assert len({trace.id for trace in traces}) == 80
    store.close()
