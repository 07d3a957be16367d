"""What one process has counted, at one moment: made, written as JSON, read, and added up."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from llamastack_metrics.definitions import BY_NAME, Labels, Merge
from llamastack_metrics.recorder import OTHER, Cell

Values = dict[str, dict[Labels, float]]
"""By the name of the metric and the labels."""
_MERGED = {Merge.lowest: min, Merge.highest: max}


@dataclass
class Snapshot:
    """requests, calls: the cells of a `Recorder`. counters, gauges: of other metrics.

    parts: names of the workers whose counts it has, if it is a sum.
    """

    requests: dict[Labels, Cell] = field(default_factory=dict)
    calls: dict[Labels, Cell] = field(default_factory=dict)
    counters: Values = field(default_factory=dict)
    gauges: Values = field(default_factory=dict)
    parts: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """Its form in a file."""
        parts = {
            "requests": [*self.requests.items()],
            "calls": [*self.calls.items()],
            "counters": _listed(self.counters),
            "gauges": _listed(self.gauges),
            "parts": self.parts,
        }
        return json.dumps(parts, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Snapshot:
        """Raises ValueError for anything but what `to_json` writes."""
        try:
            parts = json.loads(content)
            return cls(
                {tuple(labels): cell for labels, cell in parts["requests"]},
                {tuple(labels): cell for labels, cell in parts["calls"]},
                _from_lists(parts["counters"]),
                _from_lists(parts["gauges"]),
                tuple(parts["parts"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"is no snapshot: {error}") from None

    def without_gauges(self) -> Snapshot:
        """What stays of it when its process has ended."""
        return replace(self, gauges={})

    def of(self, parts: Iterable[str]) -> Snapshot:
        """The same, with the names of the workers whose counts it has."""
        return replace(self, parts=tuple(parts))


def _listed(values: Values) -> dict[str, list[tuple[Labels, float]]]:
    return {name: [*series.items()] for name, series in values.items()}


def _from_lists(values: Mapping[str, Iterable[tuple[list[str], float]]]) -> Values:
    return {name: {tuple(labels): value for labels, value in series} for name, series in values.items()}


def added_up(snapshots: Iterable[Snapshot], most: int | None = None) -> Snapshot:
    """The sum of several.

    most: label sets of requests, and of calls; further ones are added to `other`. With such a limit the sum depends on
    the order, so only what is kept for good has one: a scrape would show counters that fall.
    """
    total = Snapshot()
    for each in snapshots:
        _add_cells(total.requests, each.requests, most)
        _add_cells(total.calls, each.calls, most)
        for name, series in each.counters.items():
            sums = total.counters.setdefault(name, {})
            for labels, value in series.items():
                sums[labels] = sums.get(labels, 0) + value
        for name, series in each.gauges.items():
            _merge(total.gauges.setdefault(name, {}), series, BY_NAME[name].merge)
    return total


def _add_cells(total: dict[Labels, Cell], cells: Mapping[Labels, Cell], most: int | None) -> None:
    for labels, cell in cells.items():
        if most is not None and labels not in total and len(total) >= most:
            labels = (OTHER,) * len(labels)
        there = total.get(labels)
        total[labels] = cell if there is None else [a + b for a, b in zip(there, cell, strict=True)]


def _merge(total: dict[Labels, float], series: Mapping[Labels, float], merge: Merge) -> None:
    merged = _MERGED.get(merge)
    for labels, value in series.items():
        there = total.get(labels)
        total[labels] = value if there is None else merged(there, value) if merged else there + value
