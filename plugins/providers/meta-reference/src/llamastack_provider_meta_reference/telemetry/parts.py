"""What arrives of a span, and what is known of it and of its trace so far.

A span of the stack arrives whole. One of a client arrives in parts, in any order: its start, its end, and what happened
in it. Whatever the order, the result is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import pydantic_core

from llamastack.api.telemetry import Event, MetricEvent, SpanStartPayload, UnstructuredLogEvent
from llamastack_telemetry import Attributes, AttributeValue, FinishedSpan, TimedEvent
from llamastack_telemetry import conventions as names

NOT_STARTED = "(not started)"
"""The name of a span whose start is not known."""
_MOST_TOKENS = 2**40
_MOST_CURRENCIES = 8
_LONGEST_CURRENCY = 16
LATEST_NS = 2**63 - 1


class Root(NamedTuple):
    """What decides which span is a trace's root: the smallest.

    rank: 0: it began, and has no parent. 1: it began; its parent may be unknown here. 2: its start is not known.
    """

    rank: int
    start_ns: int
    span_id: str


@dataclass(slots=True)
class Part:
    """What one event says of a span.

    start_ns: when the span began; if `name` is None, the moment of the event. name: None if the start is not in it.
    end_ns: None if the end is not in it. events: those of the span.
    """

    trace_id: str
    span_id: str
    start_ns: int
    name: str | None = None
    parent_id: str | None = None
    kind: str = "internal"
    end_ns: int | None = None
    status: str = "unset"
    message: str = ""
    attributes: Mapping[str, object] = field(default_factory=dict)
    events: list[TimedEvent] = field(default_factory=list)


def part_of_span(span: FinishedSpan) -> Part:
    """A span that is whole."""
    return Part(
        span.trace_id,
        span.span_id,
        span.start_ns,
        span.name,
        span.parent_id,
        span.kind,
        span.end_ns,
        span.status,
        span.message,
        span.attributes,
        span.events,
    )


def part_of_event(event: Event, at_ns: int) -> Part:
    """What a client logs. at_ns: its timestamp, in nanoseconds since 1970."""
    attributes = event.attributes or {}
    part = partial(Part, event.trace_id, event.span_id, at_ns)
    if isinstance(event, UnstructuredLogEvent):
        said = {**attributes, "message": event.message, "severity": event.severity.value}
        return part(events=[TimedEvent("log", at_ns, said)])
    if isinstance(event, MetricEvent):
        return part(events=[TimedEvent(event.metric, at_ns, {**attributes, "value": event.value, "unit": event.unit})])
    if isinstance(event.payload, SpanStartPayload):
        return part(name=event.payload.name, parent_id=event.payload.parent_span_id, attributes=attributes)
    return part(end_ns=at_ns, status=event.payload.status.value, attributes=attributes)


@dataclass(slots=True)
class KeptSpan:
    """A span as far as it is known, as its row has it."""

    trace: int
    span_id: str
    parent_id: str | None
    name: str | None
    kind: str
    start_ns: int
    end_ns: int | None
    status: str
    message: str | None
    attributes: dict[str, object]

    def add(self, part: Part) -> bool:
        """Add what is new. The first start and the first end count; attributes of the end go before those of the start.

        Returns False if nothing of it is new.
        """
        started = part.name is not None and self.name is None
        ended = part.end_ns is not None and self.end_ns is None
        if not (started or ended or (part.name is None and part.end_ns is None)):
            return False
        if started:
            self.parent_id, self.name, self.kind, self.start_ns = part.parent_id, part.name, part.kind, part.start_ns
            self.attributes = {**part.attributes, **self.attributes}
        elif self.name is None:
            self.start_ns = min(self.start_ns, part.start_ns)
        if ended:
            self.end_ns, self.status, self.message = part.end_ns, part.status, part.message or None
            self.attributes = {**self.attributes, **part.attributes}
        return True

    @property
    def root(self) -> Root:
        """How it stands among those that may be the root."""
        rank = 2 if self.name is None else 1 if self.parent_id is not None else 0
        return Root(rank, self.start_ns, self.span_id)


@dataclass(slots=True)
class KeptTrace:
    """A trace as far as it is known, as its row has it. seen_s: when its first span arrived, in seconds since 1970."""

    id: int
    trace_id: str
    seen_s: int
    start_ns: int
    end_ns: int | None
    root: Root
    name: str | None
    spans: int = 0
    errors: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    costs: str | None = None
    """JSON: a currency to the number of spans that have a cost in it, and the sum of their costs; None if none has."""
    root_status: str = "unset"
    """As far as it was read; it is not in the row."""

    def row(self) -> tuple[object, ...]:
        """In the order of the table's columns."""
        return (
            self.id,
            self.trace_id,
            self.seen_s,
            self.start_ns,
            self.end_ns,
            *self.root,
            self.name,
            self.spans,
            self.errors,
            self.input_tokens,
            self.output_tokens,
            self.costs,
        )

    @property
    def cost(self) -> tuple[float, str] | None:
        """An amount and its currency, "" if that is not known; None if there is none, or in several currencies."""
        costs = _costs(self.costs)
        if len(costs) != 1:
            return None
        [(currency, (_, amount))] = costs.items()
        return amount, currency

    def extend(self, root: Root, name: str | None, start_ns: int, end_ns: int | None) -> None:
        """Take in what is known of a span of it."""
        if start_ns < self.start_ns:  # perf: llamastack-v1-sqlite. `min` takes three times as long.
            self.start_ns = start_ns
        if end_ns is not None and (self.end_ns is None or end_ns > self.end_ns):
            self.end_ns = end_ns
        if root <= self.root:
            self.root, self.name = root, name

    def add_span(self, root: Root, span: FinishedSpan) -> None:
        """Take in a whole span that is new. root: how it stands among those that may be the root."""
        self.spans += 1
        self.extend(root, span.name, span.start_ns, span.end_ns)
        self.count(span.own_attributes, span.status)

    def add_span_in_parts(self) -> None:
        """Count a span of which nothing is known yet."""
        self.spans += 1

    def count(self, attributes: Mapping[str, object], status: str, sign: int = 1) -> None:
        """Add the tokens, the cost and the failure of a span. sign: -1 takes them away, before the span changes."""
        if status == "error":
            self.errors += sign
        # perf: llamastack-v1-sqlite. Most spans have none of these.
        if names.INPUT_TOKENS in attributes and (read := _tokens(attributes[names.INPUT_TOKENS])) is not None:
            self.input_tokens = (self.input_tokens or 0) + sign * read
        if names.OUTPUT_TOKENS in attributes and (wrote := _tokens(attributes[names.OUTPUT_TOKENS])) is not None:
            self.output_tokens = (self.output_tokens or 0) + sign * wrote
        if names.COST in attributes and (cost := _cost(attributes[names.COST])) is not None:
            self._count_cost(cost, _currency(attributes.get(names.COST_CURRENCY)), sign)

    def _count_cost(self, cost: float, currency: str, sign: int) -> None:
        costs = _costs(self.costs)
        if currency not in costs and (sign < 0 or len(costs) == _MOST_CURRENCIES):
            return
        spans, amount = costs.pop(currency, (0, 0.0))
        if spans + sign > 0:
            costs[currency] = (spans + sign, amount + sign * cost)
        self.costs = as_json(costs) if costs else None


def _tokens(value: object) -> int | None:
    """Clients may send anything."""
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None


def _costs(text: str | None) -> dict[str, tuple[int, float]]:
    return {} if text is None else pydantic_core.from_json(text)


def _currency(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= _LONGEST_CURRENCY else ""


def _cost(value: object) -> float | None:
    return float(value) if type(value) in (int, float) and 0 <= value < 1e12 else None  # type: ignore[operator,arg-type]


def as_json(attributes: Mapping[str, object]) -> str:
    """The JSON of attributes. Raises ValueError for a text that is not Unicode, or what is too deep."""
    # perf: llamastack-v1-sqlite. Three times as fast as `json.dumps`.
    return pydantic_core.to_json(attributes, inf_nan_mode="strings").decode()


def without_surrogates(span: FinishedSpan) -> FinishedSpan:
    """A span that can be written, where a text in it is not Unicode."""
    return replace(
        span,
        trace_id=_unicode(span.trace_id),
        span_id=_unicode(span.span_id),
        parent_id=None if span.parent_id is None else _unicode(span.parent_id),
        name=_unicode(span.name),
        message=_unicode(span.message),
        own_attributes=_unicode_attributes(span.attributes),
        shared_attributes={},
        events=[
            TimedEvent(_unicode(event.name), event.time_ns, _unicode_attributes(event.attributes))
            for event in span.events
        ],
    )


def _unicode_attributes(attributes: Mapping[str, AttributeValue]) -> Attributes:
    def clean(value: AttributeValue) -> AttributeValue:
        if isinstance(value, str):
            return _unicode(value)
        return [_unicode(each) for each in value] if isinstance(value, list) else value

    return {_unicode(name): clean(value) for name, value in attributes.items()}


def _unicode(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
