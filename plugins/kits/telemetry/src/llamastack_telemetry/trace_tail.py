"""Traces of a server as they finish: each once, whatever the order in which their spans come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import anyio

from llamastack.api.telemetry import Span, SpanKind, SpanStatus, TraceSummary
from llamastack.provider import LlamaStackError, NotFoundError
from llamastack.provider.commands import CommandOutput
from llamastack_telemetry.span_forest import Node, all_below, forest
from llamastack_telemetry.trace_reading import LARGEST_PAGE, listed, spans_of

if TYPE_CHECKING:
    from llamastack import LlamaStackClient

__all__ = ["Tail"]

LOOK_EVERY_S = 1.0
_SHORTEST_BACK = timedelta(seconds=15)
_LONGEST_BACK = timedelta(hours=1)
_SETTLED_S = 60.0
_MOST_LISTED = 20_000
_AWAY = (429, 502, 503, 504)
"""Statuses of a server that restarts, and of a proxy before it."""
_MOST_REMEMBERED = 20_000


@dataclass
class _Known:
    """A trace that was looked at. spans: how many it had. changed_at: when their number changed, on this clock.

    shown: ids of spans that were shown. waits: whether it has others.
    """

    start: datetime
    spans: int = 0
    changed_at: float = 0.0
    shown: set[str] = field(default_factory=set)
    waits: bool = True

    def take(self, spans: int, now: float) -> None:
        """It has so many spans now."""
        if spans != self.spans:
            self.spans, self.changed_at = spans, now

    def mark(self, spans: Sequence[Span]) -> None:
        """These spans are shown."""
        self.shown.update(span.span_id for span in spans)

    def wait(self, waits: bool) -> None:
        """Whether it has spans that are not shown."""
        self.waits = waits


class Tail:
    """Looks for finished traces. All moments are the server's, so the clock of this machine does not matter.

    show: gets the spans of a tree that has ended. errors: only trees with a span that failed. name: only traces with
    this text in the name of their root.
    """

    def __init__(
        self,
        client: LlamaStackClient,
        output: CommandOutput,
        show: Callable[[list[Span]], None],
        *,
        errors: bool = False,
        name: str | None = None,
    ) -> None:
        self._client = client
        self._output = output
        self._show = show
        self._errors = errors
        self._filter_status = SpanStatus.error if errors else None
        self._filter_name = name
        self._known: dict[str, _Known] = {}
        self._looks = 0
        self._newest: datetime | None = None
        self._ended_before: datetime | None = None
        self._forgotten: datetime | None = None

    async def begin(self) -> None:
        """Note what has finished already. Raises the error of a server that lists no traces."""
        found = await listed(self._client, LARGEST_PAGE)
        self._newest = max((trace.start_time for trace in found), default=None)
        self._ended_before = max((trace.end_time for trace in found if trace.end_time is not None), default=None)

    async def run(self) -> None:
        """Show traces until it is cancelled. A server that is away for some time does not end it."""
        is_away = False
        while True:
            await anyio.sleep(LOOK_EVERY_S)
            try:
                await self.look()
            except LlamaStackError as error:
                if error.status not in _AWAY:
                    raise
                if not is_away:
                    self._say(f"warning: {error.message}; waiting for the server")
                is_away = True
            else:
                if is_away:
                    self._say("the server answers again")
                is_away = False

    async def look(self) -> None:
        """Show what has finished since the last look."""
        since = None if self._newest is None else self._newest - _back(self._looks + 1)
        found = await listed(
            self._client, _MOST_LISTED, since=since, status=self._filter_status, name=self._filter_name
        )
        if len(found) == _MOST_LISTED:
            self._say(f"warning: more than {_MOST_LISTED:,} traces since {since}; the oldest of them are not shown")
        newest = found[:1]
        if self._errors or self._filter_name is not None:
            newest = await listed(self._client, 1)
        for trace in reversed(found):
            if self._is_news(trace):
                await self._look_at(trace)
        self._newest = max((trace.start_time for trace in newest), default=self._newest)
        self._looks += 1

    def _say(self, text: str) -> None:
        self._output.say(text, err=True)

    def _is_news(self, trace: TraceSummary) -> bool:
        if self._ended_before is not None and trace.end_time is not None and trace.end_time <= self._ended_before:
            return False
        known = self._known.get(trace.trace_id)
        if known is None:
            return self._forgotten is None or trace.start_time > self._forgotten
        return known.spans != trace.spans or (known.waits and _is_settled(known))

    async def _look_at(self, trace: TraceSummary) -> None:
        try:
            spans = await spans_of(self._client, trace.trace_id, self._output)
        except NotFoundError:
            return  # deleted since it was listed
        known = self._known.get(trace.trace_id) or self._remember(trace)
        known.take(trace.spans, anyio.current_time())
        waits = False
        for root in forest([span for span in spans if span.span_id not in known.shown]):
            if _has_ended(root, known):
                tree = [node.span for node in all_below(root)]
                known.mark(tree)  # before it is shown: an interruption must not show it twice
                if not self._errors or any(span.status is SpanStatus.error for span in tree):
                    self._show(tree)
            else:
                waits = True
        known.wait(waits)

    def _remember(self, trace: TraceSummary) -> _Known:
        while len(self._known) >= _MOST_REMEMBERED:
            oldest = self._known.pop(next(iter(self._known)))
            self._forgotten = max(oldest.start, self._forgotten or oldest.start)
        known = self._known[trace.trace_id] = _Known(trace.start_time)
        return known


def _back(look: int) -> timedelta:
    """How far a look goes back, from the newest trace: each look a little, every second, fourth, ... twice as far.

    A trace is listed by when it began. So one that took long is found after a small part of the time that it took, and
    most looks list few traces.
    """
    return min(_SHORTEST_BACK * (look & -look), _LONGEST_BACK)


def _is_settled(known: _Known) -> bool:
    return anyio.current_time() - known.changed_at >= _SETTLED_S


def _has_ended(root: Node, known: _Known) -> bool:
    """Spans come when they end, so the parent comes last, unless it is in another process or lost."""
    span = root.span
    is_top = span.parent_span_id is None or span.kind is SpanKind.server or span.parent_span_id in known.shown
    return is_top or _is_settled(known)
