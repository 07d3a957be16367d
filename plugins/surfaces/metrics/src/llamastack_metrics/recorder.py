"""Counts what hooks report. It runs on the path of every request, so it does little: one look-up per event.

A series is a list of numbers, which is changed in place. Nothing of prometheus_client is used before a scrape.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from typing import NamedTuple

from llamastack.provider import hookimpl
from llamastack.provider.hookspecs import FinishedRequest
from llamastack.provider.provider_call import CallEvent
from llamastack_metrics.definitions import Labels
from llamastack_metrics.settings import MetricsConfig

_LOGGER = logging.getLogger("llamastack.metrics")
OTHER = "other"
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"))
Cell = list[float]
"""Of a request: the counts of its buckets, then the sum of seconds.

Of a call: the counts of the buckets of its duration, those of the time to its first token, then the sum of durations,
the sum of times to the first token, the input tokens and the output tokens.
"""
_RequestKey = tuple[str, str | None, int]
_CallKey = tuple[str, str, str, str, str, str | None]
"""api, method, identifier, provider_id, status, error_code: as they stand in a `CallEvent`."""


class _CallSeries(NamedTuple):
    """cell: of the call. running: calls and streams of its provider that run now."""

    cell: Cell
    running: list[int]


class Recorder:
    """The plugin that counts, and the counts of one process."""

    def __init__(self, settings: MetricsConfig) -> None:
        self._bounds = settings.duration_buckets_s
        self._first_bounds = settings.first_token_buckets_s
        self._first_place = len(self._bounds) + 1
        self._most = settings.max_series
        self.requests: dict[Labels, Cell] = {}
        self.calls: dict[Labels, Cell] = {}
        self.running: dict[Labels, list[int]] = {}
        """Calls and open streams by API and provider."""
        self.registered: dict[Labels, float] = {}
        """Registrations by API."""
        self.unregistered: dict[Labels, float] = {}
        self._requests_by_key: dict[_RequestKey, Cell] = {}
        self._calls_by_key: dict[_CallKey, _CallSeries] = {}
        self._warned: set[str] = set()

    # ---- events ------------------------------------------------------------------------------------------------------
    # perf: llamastack-v1-metrics. A slice of an event makes the key in one step.

    @hookimpl
    def llamastack_request_finished(self, request: FinishedRequest) -> None:
        """Count a request."""
        key = (request.method, request.route, request.status)
        cell = self._requests_by_key.get(key) or self._new_request(key)
        took = request.duration_s
        cell[bisect_left(self._bounds, took)] += 1
        cell[-1] += took

    @hookimpl
    def llamastack_call_started(self, event: CallEvent) -> None:
        """Count a call as running."""
        running = self.running.get(event[2:6:3]) or self._new_running(event.api, event.provider_id)
        running[0] += 1
        if event.call is not None and event.call.stream:
            running[1] += 1

    @hookimpl
    def llamastack_call_finished(self, event: CallEvent) -> None:
        """Count a call that was running."""
        key = event[2:6] + event[11:13]
        cell, running = self._calls_by_key.get(key) or self._new_call(key)
        running[0] -= 1
        took = event.duration_s or 0.0
        cell[bisect_left(self._bounds, took)] += 1
        cell[-4] += took
        if event.call is not None and event.call.stream:
            running[1] -= 1
            first = event.first_piece_s
            if first is not None:
                cell[self._first_place + bisect_left(self._first_bounds, first)] += 1
                cell[-3] += first
        cell[-2] += event.input_tokens or 0
        cell[-1] += event.output_tokens or 0

    @hookimpl
    def llamastack_object_registered(self, api: str) -> None:
        """Count a registration."""
        self.registered[api,] = self.registered.get((api,), 0) + 1

    @hookimpl
    def llamastack_object_unregistered(self, api: str) -> None:
        """Count one that was undone."""
        self.unregistered[api,] = self.unregistered.get((api,), 0) + 1

    # ---- new series --------------------------------------------------------------------------------------------------

    def _new_request(self, key: _RequestKey) -> Cell:
        method, route, status = key
        labels = (method if method in _METHODS else OTHER, route or OTHER, str(status))
        cell = self._cell(self.requests, labels, len(self._bounds) + 2, "requests")
        if labels in self.requests:
            self._requests_by_key[key] = cell
        return cell

    def _new_call(self, key: _CallKey) -> _CallSeries:
        api, method, identifier, provider, status, code = key
        labels = (api, method, identifier, provider, code or status)
        cell = self._cell(self.calls, labels, len(self._bounds) + len(self._first_bounds) + 6, "provider calls")
        series = _CallSeries(cell, self.running.get((api, provider)) or self._new_running(api, provider))
        if labels in self.calls:
            self._calls_by_key[key] = series
        return series

    def _new_running(self, api: str, provider: str) -> list[int]:
        return self.running.setdefault((api, provider), [0, 0])

    def _cell(self, cells: dict[Labels, Cell], labels: Labels, length: int, what: str) -> Cell:
        """The cell of these labels, or that of `other` if there are as many as allowed."""
        if labels not in cells and len(cells) >= self._most - 1:
            labels = (OTHER,) * len(labels)
            if what not in self._warned:
                self._warned.add(what)
                _LOGGER.warning(
                    "metrics.max_series: there are %d label sets of %s; further ones are counted as `%s`",
                    self._most,
                    what,
                    OTHER,
                )
        return cells.setdefault(labels, [0] * length)
