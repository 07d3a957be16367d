"""What happened in a span, for people: lines of a log and metrics that clients log, and events of other names."""

from __future__ import annotations

import json
from collections.abc import Sequence

from llamastack.api.telemetry import LogSeverity, Span, SpanEvent
from llamastack.provider.commands import Style
from llamastack_telemetry.trace_words import duration

__all__ = ["chosen_events", "event_style", "event_words", "look_of_events", "value_words"]

_MESSAGE, _SEVERITY, _VALUE, _UNIT = "message", "severity", "value", "unit"
_BAD = (LogSeverity.error, LogSeverity.critical)
_GAP = "  "


def value_words(value: object) -> str:
    """The value of an attribute."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def event_words(span: Span, event: SpanEvent, *, attributes: bool) -> str:
    """When it happened in its span, what it is called, and what it says; attributes: also what else it has."""
    seconds = (event.timestamp - span.start_time).total_seconds()
    said = event.attributes
    parts = [f"{'-' if seconds < 0 else '+'}{duration(abs(seconds))}", event.name]
    used: tuple[str, ...] = ()
    if _MESSAGE in said:
        used = (_SEVERITY, _MESSAGE)
        parts.append(": ".join(value_words(said[name]) for name in used if name in said))
    elif _VALUE in said:
        used = (_VALUE, _UNIT)
        parts.append(" ".join(value_words(said[name]) for name in used if name in said))
    if attributes:
        parts += [f"{name}: {value_words(value)}" for name, value in said.items() if name not in used]
    return _GAP.join(part for part in parts if part)


def event_style(event: SpanEvent) -> Style:
    """Errors stand out, as spans that failed do."""
    return "red" if event.attributes.get(_SEVERITY) in _BAD else "dim"


def chosen_events(events: Sequence[SpanEvent], most: int | None) -> list[SpanEvent]:
    """`most` of them, in their order. Those that are errors go before others, then the first ones."""
    if most is None or len(events) <= most:
        return list(events)
    by_weight = sorted(range(len(events)), key=lambda place: (event_style(events[place]) != "red", place))
    return [events[place] for place in sorted(by_weight[:most])]


def look_of_events(span: Span) -> tuple[str, ...]:
    """Equal for spans of whose events one stands for the others: values and times of metrics may differ."""
    return tuple(
        f"{event.name} {value_words(event.attributes.get(_SEVERITY))} {value_words(event.attributes.get(_MESSAGE))}"
        for event in span.events
    )
