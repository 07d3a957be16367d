"""A trace drawn for a person: its tree, and where in its time each span lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import wcwidth

from llamastack.api.telemetry import Span
from llamastack.provider.commands import Style
from llamastack.provider.control_characters import one_line
from llamastack_telemetry import conventions as names
from llamastack_telemetry.event_words import chosen_events, event_style, event_words, value_words
from llamastack_telemetry.span_forest import Node, Run, bounds, forest, is_error, runs
from llamastack_telemetry.trace_words import cells, cut, details, duration, length, padded

__all__ = ["Drawing", "Line", "drawn"]

Line = list[tuple[str, Style]]
"""Pieces of text with their styles."""

_NARROWEST = 20
_NARROWEST_WITH_BARS, _NARROWEST_WITH_DETAILS = 40, 60
_SHORTEST_BAR, _LONGEST_BAR = 12, 40
_GAP = "  "
_LONGEST_EVENT, _LONGEST_OF_ALL_EVENTS = 300, 2000  # columns; JSON has the whole text
_NOT_STARTED = "(not started)"  # what a store calls a span of which it has the end or events, but no start
_LONGEST_LEAD = 240  # characters of tree lines; no terminal shows more


@dataclass(frozen=True)
class _Signs:
    branch: str
    last: str
    down: str
    bar: str
    cut: str


_BOXES = _Signs("├─ ", "└─ ", "│  ", "━", "…")
_ASCII = _Signs("|- ", "`- ", "|  ", "=", "...")


@dataclass(frozen=True)
class Drawing:
    """How a trace is drawn.

    width: columns of the terminal. encoding: of stdout; without box characters in it, the lines are ASCII.
    collapse: whether neighbours that look the same become one line. depth: levels that are drawn, from 1; None for all.
    most_spans: spans that are drawn; None for all. attributes: whether they are drawn below each span.
    most_events: events that are drawn below each span; None for all.
    """

    width: int = 100
    encoding: str = "utf-8"
    collapse: bool = True
    depth: int | None = None
    most_spans: int | None = 1000
    attributes: bool = False
    most_events: int | None = 10

    @property
    def signs(self) -> _Signs:
        """Those that stdout can show."""
        try:
            "".join((_BOXES.branch, _BOXES.last, _BOXES.down, _BOXES.bar, _BOXES.cut)).encode(self.encoding)
        except UnicodeEncodeError:
            return _ASCII
        return _BOXES

    def text(self, text: str) -> str:
        """`text` in one line, of characters that stdout can show."""
        return one_line(text).encode(self.encoding, "backslashreplace").decode(self.encoding)


@dataclass
class _Row:
    """A line of the tree, and the lines below it.

    lead: the tree lines before the label. under: those before `texts`. level: 0 for a root. spans: that it stands for.
    """

    lead: str
    under: str
    level: int
    label: str
    style: Style
    length: str
    start: datetime
    end: datetime | None
    details: str = ""
    texts: list[tuple[str, Style]] = field(default_factory=list)
    spans: int = 1


def drawn(spans: Sequence[Span], drawing: Drawing) -> Iterator[Line]:
    """The lines of a trace, each at most as wide as the terminal."""
    rows: list[_Row] = []
    left_out = ""
    shown = 0
    for row in _rows(forest(spans), drawing):
        if drawing.most_spans is not None and len(rows) >= drawing.most_spans:
            left_out = f"{drawing.signs.cut} and {len(spans) - shown:,} more spans; --all shows all"
            break
        rows.append(row)
        shown += row.spans
    layout = _Layout.of(rows, drawing, bounds(spans))
    for row in rows:
        yield layout.line(row)
        yield from layout.lines_below(row)
    if left_out:
        yield [(cut(left_out, layout.width, drawing.signs.cut), "dim")]


# ---- rows --------------------------------------------------------------------------------------------------------


@dataclass
class _Place:
    """Nodes that wait to become a row: a node, or the rest of a run."""

    nodes: list[Node]
    is_rest: bool
    lead: str
    is_last: bool
    level: int


def _rows(roots: Sequence[Node], drawing: Drawing) -> Iterator[_Row]:
    """Without recursion: the tree may be thousands of levels deep."""
    signs = drawing.signs
    waiting = _places(roots, "", 0, drawing)[::-1]
    while waiting:
        place = waiting.pop()
        lead = under = place.lead
        if place.level:
            lead += signs.last if place.is_last else signs.branch
            under += "   " if place.is_last else signs.down
        if place.is_rest:
            yield _rest_row(place, lead, under, signs)
            continue
        [node] = place.nodes
        below = node.children if drawing.depth is None or place.level + 1 < drawing.depth else []
        yield _node_row(node, place.level, lead, under, bool(below), drawing)
        waiting += _places(below, under[-_LONGEST_LEAD:], place.level + 1, drawing)[::-1]


def _places(nodes: Sequence[Node], lead: str, level: int, drawing: Drawing) -> list[_Place]:
    parts = [
        (part, is_rest)
        for run in runs(nodes, collapse=drawing.collapse)
        for part, is_rest in ((run.nodes[:1], False), (run.nodes[1:], True))
        if part
    ]
    return [_Place(part, is_rest, lead, place == len(parts), level) for place, (part, is_rest) in enumerate(parts, 1)]


def _node_row(node: Node, level: int, lead: str, under: str, has_children: bool, drawing: Drawing) -> _Row:
    span = node.span
    hidden = f" (+{node.below:,})" if node.below and not has_children else ""
    row = _Row(
        lead=lead,
        under=under + (drawing.signs.down if has_children else "   "),
        level=level,
        label=drawing.text(span.name or span.span_id) + hidden,
        style="red" if is_error(node) else "",
        length=length(span),
        start=span.start_time,
        end=span.end_time,
        details=drawing.text(_details(span)),
        spans=1 if has_children else node.below + 1,
    )
    if is_error(node):
        error_type = span.attributes.get(names.ERROR_TYPE)
        row.texts.append((drawing.text(span.status_message or f"failed: {error_type or 'no message'}"), "red"))
    if span.name == _NOT_STARTED:
        row.texts.append(("its start was never logged, so its name and its parent are not known", "dim"))
    if drawing.attributes:
        for name, value in span.attributes.items():
            row.texts.append((drawing.text(f"{name}: {value_words(value)}"), "dim"))
    row.texts.extend(_events(span, drawing))
    return row


def _events(span: Span, drawing: Drawing) -> Iterator[tuple[str, Style]]:
    """What happened in a span: clients log as much as they like, so it is bounded."""
    shown = chosen_events(span.events, drawing.most_events)
    longest = _LONGEST_OF_ALL_EVENTS if drawing.most_events is None else _LONGEST_EVENT
    for event in shown:
        words = drawing.text(event_words(span, event, attributes=drawing.attributes))
        yield cut(words, longest, drawing.signs.cut), event_style(event)
    if len(shown) < len(span.events):
        yield f"{drawing.signs.cut} and {len(span.events) - len(shown):,} more events; --all shows all", "dim"


def _details(span: Span) -> str:
    parts = [details(span)]
    if span.attributes.get(names.CANCELLED) is True:
        parts.insert(0, "cancelled")
    if span.end_time is None:
        parts.insert(0, "not ended")
    return _GAP.join(part for part in parts if part)


def _rest_row(place: _Place, lead: str, under: str, signs: _Signs) -> _Row:
    spans = [node.span for node in place.nodes]
    start, end = bounds(spans)
    seconds = [(span.end_time - span.start_time).total_seconds() for span in spans if span.end_time is not None]
    seconds = [each for each in seconds if each >= 0]
    texts = [duration(min(seconds)), duration(max(seconds))] if seconds else []
    return _Row(
        lead=lead,
        under=under,
        level=place.level,
        label=f"{signs.cut} {len(spans):,} more like it",
        style="dim",
        length="",
        start=start,
        end=end,
        details=" to ".join(dict.fromkeys(texts)) + " each" if texts else "",
        spans=Run(place.nodes).spans,
    )


# ---- columns -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """The widths of the columns, in columns of the terminal. begin: when the trace began. seconds: how long it took."""

    width: int
    label: int
    length: int
    bar: int
    details: int
    begin: datetime
    seconds: float
    signs: _Signs

    @classmethod
    def of(cls, rows: Sequence[_Row], drawing: Drawing, times: tuple[datetime, datetime]) -> _Layout:
        """Fit the columns to what they have to show. Where they do not fit, labels and details are cut."""
        width = max(drawing.width, _NARROWEST)
        gap = len(_GAP)
        length_width = max(cells(row.length) for row in rows)
        widest = max(len(row.lead) + cells(row.label) for row in rows)
        details_width = 0
        if width >= _NARROWEST_WITH_DETAILS:
            free = width - widest - length_width - _SHORTEST_BAR - 3 * gap
            details_width = min(max(cells(row.details) for row in rows), max(width * 2 // 5, free))
        fixed = gap + length_width + (gap + details_width if details_width else 0)
        has_bar = width >= _NARROWEST_WITH_BARS
        label_width = min(widest, width - fixed - (gap + _SHORTEST_BAR if has_bar else 0))
        bar = min(_LONGEST_BAR, width - fixed - label_width - gap) if has_bar else 0
        begin, end = times
        return cls(
            width,
            label_width,
            length_width,
            bar,
            details_width,
            begin,
            (end - begin).total_seconds(),
            drawing.signs,
        )

    def line(self, row: _Row) -> Line:
        """The line of a span."""
        lead = self._short(row.lead, row.level, self.label)
        label = cut(row.label, self.label - cells(lead), self.signs.cut)
        line: Line = [
            (lead, "dim"),
            (padded(label, self.label - cells(lead)), row.style),
            (_GAP + row.length.rjust(self.length), ""),
        ]
        if self.bar:
            line.append((_GAP + self._bar(row), row.style))
        if self.details:
            line.append((_GAP + cut(row.details, self.details, self.signs.cut), ""))
        return _without_spaces_at_the_end(line)

    def lines_below(self, row: _Row) -> Iterator[Line]:
        """Its message, attributes and events, wrapped."""
        lead = self._short(row.under, row.level, self.width)
        for text, style in row.texts:
            for piece in wcwidth.wrap(text, self.width - len(lead)):
                yield [(lead, "dim"), (piece, style)]

    def _short(self, lead: str, level: int, width: int) -> str:
        """The tree lines of a span, or its level as a number where they leave no room for a name."""
        return lead if len(lead) <= width // 2 else f"{self.signs.cut}{level} {lead[-3:]}"[-(width // 2) :]

    def _bar(self, row: _Row) -> str:
        """A bar has a column at least, and ends in the column of its end."""
        if not self.seconds:
            return self.signs.bar * self.bar
        share = self.bar / self.seconds
        first = min(max(int((row.start - self.begin).total_seconds() * share), 0), self.bar - 1)
        end = self.bar
        if row.end is not None:
            end = round((row.end - self.begin).total_seconds() * share)
        end = min(max(end, first + 1), self.bar)
        return " " * first + self.signs.bar * (end - first) + " " * (self.bar - end)


def _without_spaces_at_the_end(line: Line) -> Line:
    while line:
        text, style = line.pop()
        if text.rstrip():
            return [*line, (text.rstrip(), style)]
    return line
