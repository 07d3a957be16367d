"""The names that each provider listed last, so that a call of one is a 503, not a 404, while the provider is down."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress

from pydantic import BaseModel, TypeAdapter, ValidationError

from llamastack.provider.store import Store
from llamastack.stack.supervisor import SupervisedProvider

_LOGGER = logging.getLogger("llamastack.stack")
_NAMES = TypeAdapter(frozenset[str])
_MOST_NAMES = 20_000
"""Kept for one provider. While it is down after a restart, a call of any other name is a 404 instead of a 503."""


def _names_in_config(config: object, resource_api: str) -> frozenset[str]:
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
        self._resource_api = resource_api
        self._kind = f"{resource_api} last listed"
        self._store = store
        self._names: dict[str, frozenset[str]] = {}

    async def load(self, instances: Iterable[SupervisedProvider]) -> None:
        """Take in what the store keeps of these providers."""
        for instance in instances:
            record = await self._store.get(self._kind, instance.provider_id)
            if record is not None and record.value is not None:
                with suppress(ValidationError):  # it is written again when the provider has listed
                    self._names[instance.provider_id] = _NAMES.validate_json(record.value)

    async def learn(self, instance: SupervisedProvider) -> None:
        """Keep what an instance has just listed. A store that cannot be written now is tried again at the next poll."""
        served = instance.served
        names = frozenset(served if len(served) <= _MOST_NAMES else sorted(served)[:_MOST_NAMES])
        if self._names.get(instance.provider_id) == names:
            return
        try:
            await self._store.put(self._kind, instance.provider_id, json.dumps(sorted(names)))
        except Exception as error:
            _LOGGER.warning("the store does not keep what '%s' lists: %s", instance.provider_id, error)
        else:
            self._names[instance.provider_id] = names

    def knows(self, instance: SupervisedProvider) -> bool:
        """Whether an instance has ever listed what it serves."""
        return instance.provider_id in self._names

    def has(self, instance: SupervisedProvider, name: str) -> bool:
        """Whether the last listing of an instance had `name`, or its config has it."""
        listed = self._names.get(instance.provider_id, ())
        return name in listed or name in _names_in_config(instance.plan.config, self._resource_api)
