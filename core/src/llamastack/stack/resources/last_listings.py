"""The names that each provider listed last, so that a call of one is a 503, not a 404, while the provider is down."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping

from pydantic import BaseModel

from llamastack.provider.errors import LlamaStackError
from llamastack.stack.stores import Store
from llamastack.stack.supervisor import SupervisedProvider

_LOGGER = logging.getLogger("llamastack.stack")
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

    def __init__(self, kind: str, store: Store) -> None:
        self._kind = kind
        self._store = store
        self._names: dict[str, Collection[str]] = {}
        self._unsaved: set[str] = set()

    def recall(self, listings: Iterable[tuple[str, str, list[str]]]) -> None:
        """Take in what the store kept: (kind, provider id, names)."""
        for kind, provider_id, names in listings:
            if kind == self._kind:
                self._names[provider_id] = frozenset(names)

    def learn(self, instance: SupervisedProvider) -> None:
        """Take in what an instance has just listed."""
        known = self._names.get(instance.provider_id)
        listed = instance.served.keys()
        if len(listed) > _MOST_NAMES and known is not None and len(known) == _MOST_NAMES and known <= listed:  # type: ignore[operator]
            return
        if known is None or len(known) != len(listed) or known != listed:
            self._names[instance.provider_id] = frozenset(list(listed)[:_MOST_NAMES])
            self._unsaved.add(instance.provider_id)

    def has(self, instance: SupervisedProvider, name: str) -> bool:
        """Whether the last listing of an instance had `name`."""
        return name in self._names.get(instance.provider_id, ())

    async def save(self) -> None:
        """Keep what has changed since last time. A store that cannot be written now is tried again next time."""
        keep = getattr(self._store, "keep_listing", None)
        if keep is None:
            self._unsaved.clear()
        while self._unsaved:
            provider_id = self._unsaved.pop()
            try:
                await keep(self._kind, provider_id, sorted(self._names[provider_id]))  # type: ignore[misc]
            except LlamaStackError as error:
                self._unsaved.add(provider_id)
                _LOGGER.debug("what '%s' serves is not kept: %s", provider_id, error.message)
                return
