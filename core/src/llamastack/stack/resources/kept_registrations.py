"""Registrations in the store: kept over a restart, read at the start, followed when other workers change them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Protocol

import anyio

from llamastack.api.base import RoutedObject
from llamastack.api.definition import ResourceKind
from llamastack.provider.store import Changes, Record, Store

_LOGGER = logging.getLogger("llamastack.stack")
_FOLLOW_INTERVAL_S = 0.5


class KeptRegistrations:
    """Those of one kind of object. A record is changed only as the caller knows it."""

    def __init__(self, store: Store, resource_api: str) -> None:
        self._store, self._kind = store, resource_api

    async def get(self, identifier: str) -> Record | None:
        """The record as it is now, whether this worker has followed it or not."""
        return await self._store.get(self._kind, identifier)

    async def write(self, item: RoutedObject, version: int | None) -> Record | None:
        """Keep an object in place of this version; None: another worker has changed it since.

        The record has only what was given: an alias takes the rest from what it stands for.
        """
        given = item.model_fields_set | {"identifier", "type"}
        value = item.model_dump_json(exclude_none=True, include=given)
        return await self._store.swap(self._kind, item.identifier, value, version=version)

    async def delete(self, identifier: str, version: int) -> Record | None:
        """Forget this version; None: another worker has changed it since."""
        return await self._store.swap(self._kind, identifier, None, version=version)


class Followed(Protocol):
    """What takes in the changes of one kind."""

    pair: ResourceKind

    async def follow(self, changes: Changes) -> None:
        """Take them in, and have this worker's providers follow."""


class StoreFollower:
    """Keeps the catalogues of one stack in line with its store, which its other workers share."""

    def __init__(self, store: Store, catalogues: Iterable[Followed]) -> None:
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
