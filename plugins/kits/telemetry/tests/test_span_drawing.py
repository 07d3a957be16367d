"""Traces as they are drawn: the tree, the bars, what is collapsed and what is cut."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
import wcwidth
from hypothesis import given
from hypothesis import strategies as st

from llamastack.api.telemetry import Span, SpanStatus
from llamastack.provider.control_characters import one_line
from llamastack_telemetry.span_drawing import Drawing, drawn
from llamastack_telemetry.span_forest import forest
from llamastack_telemetry.trace_words import cost, duration, short_ids, time_of_day, tokens

START = datetime(2026, 11, 29, 12, tzinfo=UTC)


def span(span_id: str, parent: str | None, name: str, start: float, end: float | None, **fields: object) -> Span:
    """Times in seconds since the start of the trace."""
    values = {
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "span_id": span_id,
        "parent_span_id": parent,
        "name": name,
        "start_time": START + timedelta(seconds=start),
        "end_time": None if end is None else START + timedelta(seconds=end),
        **fields,
    }
    return Span.model_validate(values)


def text(spans: list[Span], **settings: object) -> str:
    lines = ("".join(piece for piece, _ in line) for line in drawn(spans, Drawing(**settings)))  # type: ignore[arg-type]
    return "\n".join(lines) + "\n"


USED = {
    "gen_ai.usage.input_tokens": 12,
    "gen_ai.usage.output_tokens": 345,
    "gen_ai.response.time_to_first_chunk": 0.3,
    "llamastack.cost": 0.0012,
    "llamastack.cost.currency": "USD",
    "llamastack.provider_id": "local",
}
TRACE = [
    span("1", "c", "POST /v1/chat/completions", 0, 2.1),
    span("2", "1", "chat llama", 0.1, 2, attributes=USED),
    span("3", "1", "retrieval docs\x1b[2J", 0.05, 0.09, status=SpanStatus.error, status_message="the store is down"),
    *(span(f"e{place}", "2", "embeddings m", 0.5 + place / 100, 0.51 + place / 100) for place in range(9)),
    span("4", None, "jobs.create_job", 1, None),
]


WIDE = """\
POST /v1/chat/completions   2.10 s  ━━━━━━━━━━━━━━━
├─ retrieval docs\\x1b[2J   40.0 ms  ━
│     the store is down
└─ chat llama               1.90 s  ━━━━━━━━━━━━━━   12 in, 345 out  first 300 ms  0.0012 USD  local
   ├─ embeddings m         10.0 ms     ━
   └─ … 8 more like it                 ━             10.0 ms each
jobs.create_job                            ━━━━━━━━  not ended
"""
NARROW = """\
POST /v1/chat/completions   2.10 s  ==============
|- retrieval docs\\x1b[2J   40.0 ms  =
|     the store is down
`- chat llama               1.90 s  =============
   |- embeddings m         10.0 ms     =
   `- ... 8 more like it               =
jobs.create_job                           ========
"""
WITH_ATTRIBUTES = """\
retrieval …  40.0 ms  ━
   the store is down
chat llama    1.90 s  ━━━━━━━━━━━━  12 in, 345 out  first 3…
   gen_ai.usage.input_tokens: 12
   gen_ai.usage.output_tokens: 345
   gen_ai.response.time_to_first_chunk: 0.3
   llamastack.cost: 0.0012
   llamastack.cost.currency: USD
   llamastack.provider_id: local
"""


def test_a_trace_with_its_bars() -> None:
    assert text(TRACE) == WIDE


def test_a_narrow_terminal_without_box_characters() -> None:
    assert text(TRACE, width=50, encoding="ascii") == NARROW


def test_a_depth_and_attributes() -> None:
    drawing = text(TRACE[:3], depth=1, attributes=True)
    assert drawing == "POST /v1/chat/completions (+2)  2.10 s  " + "━" * 40 + "\n"
    assert text(TRACE[1:3], width=60, attributes=True) == WITH_ATTRIBUTES


def test_without_collapsing_every_span_has_its_line() -> None:
    assert text(TRACE, collapse=False).count("embeddings m") == 9
    assert "more like it" not in text(TRACE, collapse=False)


def test_neighbours_with_another_error_or_other_children_are_not_equal() -> None:
    calls = [span(f"e{n}", None, "chat m", n, n + 1, status="error", status_message=f"no {n % 2}") for n in range(8)]
    assert "more like it" not in text(calls)
    with_children = [*TRACE[3:12], span("x", "e4", "inside", 0.6, 0.7)]
    assert text(with_children).count("… 3 more like it") == 2


def test_many_spans_are_cut_with_their_number() -> None:
    spans = [span("r", None, "root", 0, 9), *(span(f"s{n}", "r", f"step {n}", n, n + 1) for n in range(5000))]
    lines = text(spans, most_spans=100).splitlines()
    assert len(lines) == 101
    assert lines[-1] == "… and 4,901 more spans; --all shows all"
    assert len(text(spans, most_spans=None).splitlines()) == 5001


def test_a_chain_that_is_deeper_than_the_terminal_is_wide() -> None:
    spans = [span(f"{n}", f"{n - 1}", f"n{n}.", n, 10_000) for n in range(10_000)]
    lines = text(spans, most_spans=None, width=80).splitlines()
    assert len(lines) == 10_000
    assert lines[-1].startswith("…9999 └─ n9999.")


def test_characters_of_two_columns_and_of_other_encodings() -> None:
    spans = [span("1", None, "世界" * 30, 0, 1), span("2", "1", "Grüße", 0, 1)]
    assert max(wcwidth.width(line) for line in text(spans, width=40).splitlines()) <= 40
    assert "Gr\\xfc\\xdfe" in text(spans, encoding="ascii")
    assert "├" not in text(spans, encoding="latin-1")


ids = st.integers(0, 12).map(str)
names = st.text(max_size=30)
forests = st.lists(
    st.builds(
        lambda id_, parent, name, start, lasts, error: span(
            id_, parent, name, start, None if lasts is None else start + lasts, status="error" if error else None
        ),
        ids,
        ids | st.none(),
        names,
        st.floats(0, 1000),
        st.floats(-1, 1000) | st.none(),
        st.booleans(),
    ),
    min_size=1,
    max_size=25,
)


@given(spans=forests, width=st.integers(20, 140), encoding=st.sampled_from(["utf-8", "ascii", "cp437"]))
def test_any_forest_has_each_span_once_and_fits(spans: list[Span], width: int, encoding: str) -> None:
    """Also with ids that several spans have, and parents in a circle."""
    waiting, found = forest(spans), []
    while waiting:
        node = waiting.pop()
        found.append(id(node.span))
        waiting += node.children
    assert Counter(found) == Counter(map(id, spans))
    settings = {"width": width, "encoding": encoding}
    errors = sum(each.status is SpanStatus.error for each in spans)
    lines = text(spans, collapse=False, most_spans=None, **settings).splitlines()
    failed = [line for line in lines if re.search("failed: no ?", line)]
    assert len(lines) >= len(spans) + errors
    assert width < 60 or len(lines) == len(spans) + len(failed) == len(spans) + errors
    for line in (*lines, *text(spans, attributes=True, **settings).splitlines()):
        assert wcwidth.width(line) <= width
        assert one_line(line) == line
        line.encode(encoding)


def test_spans_that_are_each_others_parents() -> None:
    spans = [span("1", "2", "one", 1, 2), span("2", "1", "two", 0, 2), span("3", "3", "own parent", 3, 4)]
    assert [line.split("  ")[0] for line in text(spans).splitlines()] == ["two", "└─ one", "own parent"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0 us"),
        (0.000_012, "12 us"),
        (0.0123, "12.3 ms"),
        (0.9996, "1.00 s"),
        (1.24, "1.24 s"),
        (59.97, "1 min 0 s"),
        (125, "2 min 5 s"),
        (7300, "2 h 1 min"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_times_and_tokens() -> None:
    assert re.fullmatch(r"\d\d:\d\d:\d\d", time_of_day(datetime.now(UTC))) is not None
    assert re.fullmatch(r"2026-01-0\d \d\d:\d\d:\d\d", time_of_day(datetime(2026, 1, 2, 12, tzinfo=UTC))) is not None
    found = [tokens(read, wrote) for read, wrote in ((None, None), (0, None), (None, 3), (123_456_789, 5))]
    assert found == ["", "0 in", "3 out", "123,456,789 in, 5 out"]


def test_costs_and_ids() -> None:
    assert [cost(amount) for amount in (None, 0, 1e-7, 0.0012, 3.5)] == ["", "0", "<0.000001", "0.0012", "3.5"]
    assert cost(2, "EUR") == "2 EUR"
    assert short_ids(["a" * 32, "b" * 32]) == ["a" * 8, "b" * 8]
    assert short_ids(["b" + "a" * 20, "c" + "a" * 20]) == ["b" + "a" * 20, "c" + "a" * 20]
    assert short_ids(["x", "x"]) == ["x", "x"]


def test_a_span_that_ends_before_it_starts_has_no_duration() -> None:
    root = span("1", None, "root", 0, 10)
    odd = [span(f"o{place}", "1", "odd", 5, 3 if place < 5 else 6) for place in range(6)]
    first, second, rest = text([root, *odd]).splitlines()
    assert first.startswith("root")
    assert re.search(r"odd +\? ", second)
    assert rest.endswith("  1.00 s each")


def event(name: str, at: float, **attributes: object) -> dict[str, object]:
    return {"name": name, "timestamp": START + timedelta(seconds=at), "attributes": attributes}


EVENTS = [
    event("log", 0.5, severity="error", message="no\x1b[2J disk\n", host="a"),
    event("queue\u202e", 0.75, value=3.5, unit="ms"),
    event("early", -1),
]
WITH_EVENTS = """\
root        1.00 s  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━
│  +500 ms  log  error: no\\x1b[2J disk\\n
│  +750 ms  queue\\u202e  3.5 ms
│  -1.00 s  early
└─ inside  500 ms  ━━━━━━━━━━━━━━━━━━━━
"""


def test_events_are_drawn_below_their_span() -> None:
    spans = [span("1", None, "root", 0, 1, events=EVENTS), span("2", "1", "inside", 0, 0.5)]
    assert [line.split() for line in text(spans).splitlines()] == [line.split() for line in WITH_EVENTS.splitlines()]
    assert "error: no\\x1b[2J disk\\n  host: a\n" in text(spans, attributes=True)
    styles = {piece[:14].strip(): style for line in drawn(spans, Drawing()) for piece, style in line}
    assert (styles["+500 ms  log"], styles["-1.00 s  early"]) == ("red", "dim")


def test_events_are_bounded_and_errors_go_before_others() -> None:
    said = [event("log", place, severity="info", message=f"m{place}") for place in range(200)]
    said += [event("log", 300, severity="critical", message="x" * 9000)]
    spans = [span("1", None, "root", 0, 400, events=said)]
    lines = [line.strip() for line in text(spans, width=1000).splitlines()[1:]]
    assert len(lines) == 11
    assert "log  info: m8" in lines[8]
    assert lines[9].startswith("+5 min 0 s  log  critical: xxx")
    assert lines[9].endswith("x…")
    assert len(lines[9]) == 300
    assert lines[10] == "… and 191 more events; --all shows all"
    everything = text(spans, width=3000, most_events=None).splitlines()
    assert len(everything) == 202
    assert len(everything[-1].strip()) == 2000


def test_a_span_with_an_event_of_its_own_is_not_collapsed() -> None:
    calls = [span(f"e{place}", None, "chat m", place, place + 1) for place in range(6)]
    calls[3] = calls[3].model_copy(update={"events": span("x", None, "x", 0, 1, events=EVENTS[:1]).events})
    assert "log  error: no" in text(calls)


def test_a_span_without_a_start_says_why() -> None:
    lines = text([span("1", None, "(not started)", 0, None)]).splitlines()
    assert lines[1].strip() == "its start was never logged, so its name and its parent are not known"
