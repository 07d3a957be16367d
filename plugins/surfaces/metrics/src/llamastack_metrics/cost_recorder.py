"""Counts what calls cost, in a stack whose models have prices."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Protocol

from llamastack.provider import hookimpl
from llamastack.provider.provider_call import CallEvent
from llamastack.stack import Stack
from llamastack_metrics.definitions import Labels
from llamastack_metrics.recorder import OTHER
from llamastack_metrics.settings import MetricsConfig
from llamastack_metrics.sources import TELEMETRY


class _Cost(Protocol):
    @property
    def amount(self) -> Decimal: ...
    @property
    def currency(self) -> str: ...


class _Prices(Protocol):
    """What `llamastack_telemetry.prices_of(stack)` gives."""

    def cost_of(self, event: CallEvent) -> _Cost | None: ...


class CostRecorder:
    """costs: by model, provider and currency. There are at most `max_series`; further ones are counted as `other`."""

    def __init__(self, settings: MetricsConfig) -> None:
        self.costs: dict[Labels, float] = {}
        self._most = settings.max_series
        self._prices: _Prices | None = None

    @hookimpl
    @asynccontextmanager
    async def llamastack_stack_lifespan(self, stack: Stack) -> AsyncIterator[None]:
        self._prices = importlib.import_module(TELEMETRY).prices_of(stack)
        yield

    @hookimpl
    def llamastack_call_finished(self, event: CallEvent) -> None:
        """Count its cost."""
        cost = None if self._prices is None else self._prices.cost_of(event)
        if cost is None:
            return
        labels = (event.identifier, event.provider_id, cost.currency)
        if labels not in self.costs and len(self.costs) >= self._most:
            labels = (OTHER, OTHER, cost.currency)  # never different currencies in one number
        self.costs[labels] = self.costs.get(labels, 0.0) + float(cost.amount)
