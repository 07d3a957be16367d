"""Random spans and events, in any order and batches, by several connections, against a model of what is kept."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from made_spans import BEGAN_NS, store_at

from llamastack_provider_meta_reference.telemetry.parts import Part, Root, part_of_span
from llamastack_provider_meta_reference.telemetry.trace_store import Position, SpanPosition, TraceFilter, TraceStore
from llamastack_telemetry import FinishedSpan, TimedEvent

TRACES, SPANS = ["t1", "t2", "t3"], ["a", "b", "c", "d"]
MOMENTS = st.integers(0, 9).map(lambda number: BEGAN_NS + number)
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "llamastack.cost", "x"]),
    st.integers(0, 9),
    max_size=3,
)
EVENTS = st.builds(TimedEvent, st.sampled_from(["log", "m"]), MOMENTS, st.dictionaries(st.just("n"), st.integers(0, 9)))
TRACE, SPAN = st.sampled_from(TRACES), st.sampled_from(SPANS)
PARENT = st.none() | SPAN
STATUS = st.sampled_from(["ok", "error", "unset"])
NAME = st.sampled_from(["one", "other"])

WHOLE = st.builds(
    FinishedSpan,
    TRACE,
    SPAN,
    PARENT,
    NAME,
    st.sampled_from(["server", "client"]),
    MOMENTS,
    MOMENTS,
    STATUS,
    st.sampled_from(["", "why"]),
    ATTRIBUTES,
    st.lists(EVENTS, max_size=2),
)
START = st.builds(Part, TRACE, SPAN, MOMENTS, name=NAME, parent_id=PARENT, attributes=ATTRIBUTES)
END = st.builds(
    lambda trace, own, at, status, more: Part(trace, own, at, end_ns=at, status=status, attributes=more),
    TRACE,
    SPAN,
    MOMENTS,
    STATUS,
    ATTRIBUTES,
)
HAPPENED = st.builds(lambda trace, own, event: Part(trace, own, event.time_ns, events=[event]), TRACE, SPAN, EVENTS)
BATCH = st.lists(WHOLE, min_size=1, max_size=6) | st.lists(START | END | HAPPENED, min_size=1, max_size=6)


@dataclass
class ModelSpan:
    """A span as it should be kept: its first start, its first end, and all events."""

    start: Part | None = None
    end: Part | None = None
    moments: list[int] = field(default_factory=list)
    events: list[TimedEvent] = field(default_factory=list)

    def add(self, part: Part) -> None:
        starts, ends = part.name is not None and not self.start, part.end_ns is not None and not self.end
        if starts:
            self.start = part
        if ends:
            self.end = part
        if starts or ends or (part.name is None and part.end_ns is None):
            self.moments.append(part.start_ns)
            self.events += part.events

    @property
    def attributes(self) -> dict[str, object]:
        return {**(self.start.attributes if self.start else {}), **(self.end.attributes if self.end else {})}

    @property
    def start_ns(self) -> int:
        return self.start.start_ns if self.start else min(self.moments)

    def root(self, own: str) -> Root:
        return Root(2 if self.start is None else 1 if self.start.parent_id else 0, self.start_ns, own)

    def seen(self, own: str) -> tuple[object, ...]:
        start, end = self.start, self.end
        return (
            own,
            start.parent_id if start else None,
            start.name if start else None,
            self.start_ns,
            end.end_ns if end else None,
            end.status if end else "unset",
            (end.message or None) if end else None,
            self.attributes,
            sorted((event.time_ns, event.name, str(event.attributes)) for event in self.events),
        )


Model = dict[str, dict[str, ModelSpan]]


def totals(spans: dict[str, ModelSpan]) -> tuple[object, ...]:
    def total(name: str) -> object:
        found = [span.attributes[name] for span in spans.values() if name in span.attributes]
        return sum(found) if found else None  # type: ignore[arg-type]  # these are numbers

    root = min(span.root(own) for own, span in spans.items())
    start = spans[root.span_id].start
    return (
        root,
        start.name if start else None,
        min(moment for span in spans.values() for moment in span.moments),
        max((span.end.end_ns or 0 for span in spans.values() if span.end), default=None),
        len(spans),
        sum(span.end is not None and span.end.status == "error" for span in spans.values()),
        total("gen_ai.usage.input_tokens"),
        total("gen_ai.usage.output_tokens"),
        (total("llamastack.cost"), "") if total("llamastack.cost") is not None else None,
    )


@contextmanager
def two_stores() -> Iterator[list[TraceStore]]:
    with tempfile.TemporaryDirectory() as folder:
        stores = [store_at(Path(folder) / "traces.sqlite") for _ in range(2)]
        try:
            yield stores
        finally:
            for store in stores:
                store.close()


def spans_of(store: TraceStore, trace_id: str, limit: int) -> Iterator[tuple[object, ...]]:
    after: SpanPosition | None = None
    more = True
    while more:
        found = store.spans(trace_id, after, limit)
        assert found is not None
        spans, more = found
        for span, events in spans:
            happened = sorted((event.time_ns, event.name, str(event.attributes)) for event in events)
            yield (
                span.span_id,
                span.parent_id,
                span.name,
                span.start_ns,
                span.end_ns,
                span.status,
                span.message,
                span.attributes,
                happened,
            )
            after = SpanPosition(span.start_ns, span.span_id)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), BATCH), max_size=12), st.integers(1, 4))
def test_what_is_kept_is_what_the_model_says(
    batches: list[tuple[int, list[FinishedSpan] | list[Part]]], limit: int
) -> None:
    model: Model = {}
    with two_stores() as stores:
        for writer, batch in batches:
            parts: list[Part] = [part_of_span(each) if isinstance(each, FinishedSpan) else each for each in batch]
            if all(isinstance(each, FinishedSpan) for each in batch):
                stores[writer].add([each for each in batch if isinstance(each, FinishedSpan)])
            else:
                assert stores[writer].merge(parts) == [True] * len(parts)
            for part in parts:
                model.setdefault(part.trace_id, {}).setdefault(part.span_id, ModelSpan()).add(part)
        for store in stores:
            check(store, model, limit)


def check(store: TraceStore, model: Model, limit: int) -> None:
    listed = []
    after: Position | None = None
    more = True
    while more:
        page, more = store.traces(TraceFilter(), after, limit)
        listed += page
        after = Position(page[-1].start_ns, page[-1].id) if page else None
    assert all(one.start_ns >= other.start_ns for one, other in itertools.pairwise(listed))
    assert {
        trace.trace_id: (
            trace.root,
            trace.name,
            trace.start_ns,
            trace.end_ns,
            trace.spans,
            trace.errors,
            trace.input_tokens,
            trace.output_tokens,
            trace.cost,
        )
        for trace in listed
    } == {trace_id: totals(spans) for trace_id, spans in model.items()}
    assert len(listed) == len(model)
    failed, _ = store.traces(TraceFilter(failed=True), None, 10)
    assert [trace.id for trace in failed] == [trace.id for trace in listed if trace.errors]
    for trace_id, spans in model.items():
        found = list(spans_of(store, trace_id, limit))
        ordered = sorted(spans.items(), key=lambda item: (item[1].start_ns, item[0]))
        assert found == [span.seen(own) for own, span in ordered]
