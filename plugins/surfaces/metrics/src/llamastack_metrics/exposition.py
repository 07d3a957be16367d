"""A snapshot in the formats that Prometheus reads. Importing prometheus_client takes a while: do it in a thread.

https://prometheus.io/docs/instrumenting/exposition_formats/, https://prometheus.io/docs/specs/om/open_metrics_spec/
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import Metric as Family
from prometheus_client import ProcessCollector
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from llamastack_metrics import definitions as m
from llamastack_metrics.definitions import BY_NAME, Kind, Labels, Metric
from llamastack_metrics.recorder import Cell
from llamastack_metrics.settings import MetricsConfig
from llamastack_metrics.snapshots import Snapshot, Values

_COMPRESSION = 5


class Exposition(NamedTuple):
    """A reply to a scrape. encoding: None if it is not compressed."""

    body: bytes
    content_type: str
    encoding: str | None


def expose(snapshot: Snapshot, settings: MetricsConfig, accept: str, accept_encoding: str) -> Exposition:
    """The format follows from the headers `Accept` and `Accept-Encoding`."""
    encode, content_type = choose_encoder(accept)
    body = encode(_Families(snapshot, settings))
    if gzip_accepted(accept_encoding):
        return Exposition(gzip.compress(body, _COMPRESSION), content_type, "gzip")
    return Exposition(body, content_type, None)


def process_values() -> tuple[Values, Values]:
    """Counters and gauges of this process; none where there is no /proc."""
    counters: Values = {}
    gauges: Values = {}
    for family in ProcessCollector(registry=None).collect():
        values = counters if family.type == "counter" else gauges
        values[family.name] = {(): family.samples[0].value}
    return counters, gauges


class _Families(Collector):
    def __init__(self, snapshot: Snapshot, settings: MetricsConfig) -> None:
        self._snapshot = snapshot
        self._bounds = settings.duration_buckets_s
        self._first_bounds = settings.first_token_buckets_s

    def collect(self) -> Iterable[Family]:
        yield from self._of_requests()
        yield from self._of_calls()
        for values in (self._snapshot.counters, self._snapshot.gauges):
            for name, series in values.items():
                yield _family(BY_NAME[name], series)

    def _of_requests(self) -> Iterator[Family]:
        requests, length = self._snapshot.requests, len(self._bounds) + 1
        yield _family(m.HTTP_REQUESTS, {labels: sum(cell[:length]) for labels, cell in requests.items()})
        histograms = {labels: (cell[:length], cell[-1]) for labels, cell in requests.items()}
        yield _histogram(m.HTTP_DURATION, self._bounds, histograms)

    def _of_calls(self) -> Iterator[Family]:
        calls, length = self._snapshot.calls, len(self._bounds) + 1
        yield _family(m.CALLS, {labels: sum(cell[:length]) for labels, cell in calls.items()})
        histograms = {labels: (cell[:length], cell[-4]) for labels, cell in calls.items()}
        yield _histogram(m.CALL_DURATION, self._bounds, histograms)
        firsts = _summed(calls, lambda labels: labels[:-1], lambda cell: [*cell[length:-4], cell[-3]])
        pieces = {labels: (cell[:-1], cell[-1]) for labels, cell in firsts.items() if any(cell)}
        yield _histogram(m.FIRST_TOKEN, self._first_bounds, pieces)
        tokens = _summed(calls, lambda labels: (labels[0], *labels[2:4]), lambda cell: cell[-2:])
        # A backend that reports no tokens has no series: 0 would be wrong.
        yield _family(
            m.TOKENS,
            {
                (*labels, kind): value
                for labels, cell in tokens.items()
                if any(cell)
                for kind, value in zip(("input", "output"), cell, strict=True)
            },
        )


def _summed(
    cells: Mapping[Labels, Cell], labels_of: Callable[[Labels], Labels], part_of: Callable[[Cell], Cell]
) -> dict[Labels, Cell]:
    """The sums of parts of cells, by fewer labels."""
    total: dict[Labels, Cell] = {}
    for labels, cell in cells.items():
        fewer, part = labels_of(labels), part_of(cell)
        there = total.get(fewer)
        total[fewer] = part if there is None else [a + b for a, b in zip(there, part, strict=True)]
    return total


def _family(metric: Metric, series: Mapping[Labels, float]) -> Family:
    kind = CounterMetricFamily if metric.kind is Kind.counter else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in series.items():
        family.add_metric(labels, value)
    return family


def _histogram(metric: Metric, bounds: Sequence[float], series: Mapping[Labels, tuple[Cell, float]]) -> Family:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    shown = [*map(floatToGoString, bounds), "+Inf"]
    for labels, (counts, total) in series.items():
        family.add_metric(labels, [*zip(shown, accumulate(counts), strict=True)], total)
    return family
