"""Reads what the store keeps when a stack starts, and follows what other workers change in it."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import anyio

from llamastack.stack.resources.catalogue import ResourceCatalogue
from llamastack.stack.stores import Store

_LOGGER = logging.getLogger("llamastack.stack")
_FOLLOW_INTERVAL_S = 0.5


class StoreFollower:
    """Keeps the catalogues of one stack in line with its store, which its other workers share."""

    def __init__(self, store: Store, catalogues: Mapping[str, ResourceCatalogue]) -> None:
        self._store = store
        self._catalogues = catalogues
        self._sequence = 0

    async def take(self) -> None:
        """Take in what has changed since the last time; at first, all that the store keeps."""
        sequence, changes = await self._store.changes_since(self._sequence)
        if sequence != self._sequence:
            for catalogue in self._catalogues.values():
                catalogue.follow(changes)
            self._sequence = sequence  # only now: changes that failed to be followed are read again

    async def follow(self) -> None:
        """See what other workers register, within a second."""
        while True:
            await anyio.sleep(_FOLLOW_INTERVAL_S)
            try:
                await self.take()
            except Exception:
                _LOGGER.exception("the registry cannot be followed; trying again")
