"""Spans of one trace as trees, whatever their parents say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from llamastack.api.telemetry import Span, SpanStatus
from llamastack_telemetry.event_words import look_of_events

__all__ = ["Node", "Run", "forest", "runs"]

_SHORTEST_COLLAPSED = 4


@dataclass(eq=False)
class Node:
    """A span with the spans below it, in the order in which they began.

    below: how many spans there are below it. shape: equal for trees that look the same, apart from their times.
    """

    span: Span
    children: list[Node] = field(default_factory=list)
    below: int = 0
    shape: int = 0

    def sum_up(self) -> None:
        """Set `below` and `shape` from those of the children."""
        span = self.span
        self.below = sum(child.below + 1 for child in self.children)
        look = (span.name, span.status, span.status_message, look_of_events(span))
        self.shape = hash((*look, *(child.shape for child in self.children)))


@dataclass
class Run:
    """Neighbours that look the same; all but the first are drawn as one line. A run may be one node."""

    nodes: list[Node]

    @property
    def spans(self) -> int:
        """How many spans it has, those below its nodes too."""
        return sum(node.below + 1 for node in self.nodes)


def forest(spans: Sequence[Span]) -> list[Node]:
    """The roots, in the order in which they began.

    A span is a root if its parent is not among `spans`. Of spans that are each other's parents, the earliest is a root.
    """
    nodes = [Node(span) for span in sorted(spans, key=lambda span: span.start_time)]
    by_id: dict[str, Node] = {}
    for node in nodes:
        by_id.setdefault(node.span.span_id, node)
    children: dict[int, list[Node]] = {}
    roots = []
    for node in nodes:
        parent = by_id.get(node.span.parent_span_id or "")
        if parent is None:
            roots.append(node)
        else:
            children.setdefault(id(parent), []).append(node)
    found: set[int] = set()
    ordered = [node for root in roots for node in _connect(root, children, found)]
    for node in nodes:
        if id(node) not in found:  # its parents are a circle, perhaps itself
            roots.append(node)
            ordered += _connect(node, children, found)
    for node in reversed(ordered):  # children before their parents
        node.sum_up()
    return sorted(roots, key=lambda node: node.span.start_time)


def _connect(root: Node, children: dict[int, list[Node]], found: set[int]) -> list[Node]:
    """Give each node below `root` its children, without recursion; returns all of them, parents first."""
    found.add(id(root))
    ordered = [root]
    for node in ordered:
        for child in children.get(id(node), ()):
            if id(child) not in found:
                found.add(id(child))
                node.children.append(child)
                ordered.append(child)
    return ordered


def runs(nodes: Sequence[Node], *, collapse: bool) -> Iterator[Run]:
    """The nodes, with neighbours that look the same as one run if there are enough of them."""
    at = 0
    while at < len(nodes):
        end = at + 1
        while collapse and end < len(nodes) and nodes[end].shape == nodes[at].shape:
            end += 1
        if end - at < _SHORTEST_COLLAPSED:
            end = at + 1
        yield Run(list(nodes[at:end]))
        at = end


def all_below(root: Node) -> Iterator[Node]:
    """The node and those below it, in the order in which they are drawn."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += reversed(node.children)


def is_error(node: Node) -> bool:
    """Whether the span failed."""
    return node.span.status is SpanStatus.error


def bounds(spans: Sequence[Span]) -> tuple[datetime, datetime]:
    """When the first began and when the last ended, as far as that is known."""
    start = min(span.start_time for span in spans)
    return start, max(start, *(span.end_time or span.start_time for span in spans))
