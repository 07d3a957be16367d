"""Reads what the store keeps when a stack starts, and follows what other workers change in it."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import anyio

from llamastack.provider.store import Record, Store
from llamastack.stack.resources.catalogue import ResourceCatalogue

_LOGGER = logging.getLogger("llamastack.stack")
_FOLLOW_INTERVAL_S = 0.5


class StoreFollower:
    """Keeps the catalogues of one stack in line with its store, which its other workers share."""

    def __init__(self, store: Store, catalogues: Iterable[ResourceCatalogue]) -> None:
        self._store = store
        self._catalogues = {catalogue.pair.resource_api: catalogue for catalogue in catalogues}
        self._version = 0

    async def take(self) -> None:
        """Take in what has changed since the last time; at first, all that the store keeps."""
        changes = await self._store.changes_since(self._version, self._catalogues.keys())
        records: dict[str, list[Record]] = {kind: [] for kind in self._catalogues}
        for record in changes.records:
            records[record.kind].append(record)
        for kind, catalogue in self._catalogues.items():
            if records[kind] or changes.complete:
                await catalogue.follow(changes._replace(records=records[kind]))
        self._version = changes.version  # only now: changes that failed to be followed are read again

    async def follow(self) -> None:
        """See what other workers register, within a second."""
        while True:
            await anyio.sleep(_FOLLOW_INTERVAL_S)
            try:
                await self.take()
            except Exception:
                _LOGGER.exception("the store cannot be followed; trying again")
