"""The names that each provider listed last, so that a call of one is a 503, not a 404, while the provider is down."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress

from pydantic import BaseModel, TypeAdapter, ValidationError

from llamastack.provider.errors import LlamaStackError
from llamastack.stack.stores import Store, StoredObject
from llamastack.stack.supervisor import SupervisedProvider

_LOGGER = logging.getLogger("llamastack.stack")
_NAMES = TypeAdapter(frozenset[str])
_MOST_NAMES = 20_000
"""Kept for one provider. While it is down after a restart, a call of any other name is a 404 instead of a 503."""


def names_in_config(config: object, resource_api: str) -> frozenset[str]:
    """The names that an instance's own config has for what it serves, such as the aliases in `models`."""
    names = getattr(config, "configured_names", None)
    given = getattr(config, resource_api, None) if isinstance(config, BaseModel) else None
    if names is None and isinstance(given, Mapping):
        names = given
    elif names is None and isinstance(given, list | tuple):
        names = [getattr(each, "identifier", getattr(each, "name", each)) for each in given]
    return frozenset(name for name in names or () if isinstance(name, str))


class LastListings:
    """The names of one kind of object, by provider; kept in the store, so that they are known after a restart."""

    def __init__(self, resource_api: str, store: Store) -> None:
        self._kind = f"{resource_api} last listed"
        self._store = store
        self._names: dict[str, frozenset[str]] = {}
        self._unsaved: set[str] = set()

    def recall(self, items: Iterable[StoredObject]) -> None:
        """Take in what the store kept."""
        for item in items:
            if item.kind == self._kind and item.body is not None:
                with suppress(ValidationError):  # it is written again when the provider has listed
                    self._names[item.provider_id] = _NAMES.validate_json(item.body)

    def learn(self, instance: SupervisedProvider) -> None:
        """Take in what an instance has just listed."""
        served = instance.served.keys()
        listed = served if len(served) <= _MOST_NAMES else frozenset(sorted(served)[:_MOST_NAMES])
        if self._names.get(instance.provider_id) != listed:
            self._names[instance.provider_id] = frozenset(listed)
            self._unsaved.add(instance.provider_id)

    def has(self, instance: SupervisedProvider, name: str) -> bool:
        """Whether the last listing of an instance had `name`."""
        return name in self._names.get(instance.provider_id, ())

    async def save(self) -> None:
        """Keep what has changed since last time. A store that cannot be written now is tried again next time."""
        while self._unsaved:
            provider_id = self._unsaved.pop()
            names = json.dumps(sorted(self._names[provider_id]))
            try:
                await self._store.put(StoredObject(self._kind, provider_id, provider_id, names), replace=True)
            except (LlamaStackError, OSError) as error:
                self._unsaved.add(provider_id)
                _LOGGER.debug("what '%s' serves is not kept: %s", provider_id, error)
                return
