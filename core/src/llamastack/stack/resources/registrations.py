"""The objects that the run config and users registered, and whether their providers have taken them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from weakref import WeakValueDictionary

import anyio
from pydantic import ValidationError

from llamastack.api.base import RoutedObject
from llamastack.api.definition import ResourceKind
from llamastack.stack.stores import StoredObject

_LOGGER = logging.getLogger("llamastack.stack")
_NOT_YET = "not registered with its provider yet"


class Registration:
    """A registered object.

    reason: why it cannot be used now. declared: it is in the run config, not in the store.
    """

    def __init__(self, item: RoutedObject, *, declared: bool, taken: bool) -> None:
        self.object = item
        self.declared = declared
        self.reason = None if taken else _NOT_YET
        self._listed = False
        self._warned = False

    def wait(self, reason: str = _NOT_YET) -> None:
        """It has to be registered with its provider (again). An earlier reason stays."""
        self.reason = self.reason or reason

    def polled(self, *, listed: bool) -> None:
        """Its provider lists it, or does not. An object that was listed before is missed when it vanishes."""
        if self._listed and not listed:
            self.wait("its provider does not serve it any more")
        self._listed = listed

    def take(self) -> bool:
        """Its provider has taken it. Returns whether it was refused before."""
        self.reason = None
        refused, self._warned = self._warned, False
        return refused

    def refuse(self, reason: str) -> bool:
        """Its provider refuses it. Returns whether this is news: the stack tries again and again."""
        self.reason = reason
        refused, self._warned = self._warned, True
        return not refused


class Registrations:
    """The registrations of one kind of object, by identifier."""

    def __init__(self, kind: ResourceKind) -> None:
        self._kind = kind
        self._by_name: dict[str, Registration] = {}
        self._gone: dict[str, dict[str, RoutedObject]] = {}
        # Weak: a lock is there as long as somebody holds it or waits for it.
        self._locks: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()

    def get(self, identifier: str) -> Registration | None:
        return self._by_name.get(identifier)

    def all(self) -> Iterable[Registration]:
        return self._by_name.values()

    def of(self, provider_id: str) -> list[Registration]:
        """The registrations with one provider."""
        return [each for each in self._by_name.values() if each.object.provider_id == provider_id]

    def add(self, item: RoutedObject, *, declared: bool = False, taken: bool = False) -> None:
        self.remove(item.identifier)
        self._by_name[item.identifier] = Registration(item, declared=declared, taken=taken)

    def remove(self, identifier: str) -> None:
        self._by_name.pop(identifier, None)

    def lock(self, identifier: str) -> anyio.Lock:
        """Held while one object is registered or unregistered."""
        lock = self._locks.get(identifier)
        if lock is None:
            lock = self._locks[identifier] = anyio.Lock()
        return lock

    def apply(self, changes: Iterable[StoredObject]) -> set[str]:
        """Take in changes of the store. Returns the ids of the providers that they concern."""
        concerned: set[str] = set()
        for change in changes:
            known = self._by_name.get(change.identifier)
            if known is not None and known.declared:
                if change.body is not None and known.object.provider_id != change.provider_id:
                    _LOGGER.warning(
                        "%s '%s' stands in the run config and, otherwise, in the registry: the run config counts",
                        self._kind.label,
                        change.identifier,
                    )
                continue
            try:
                item = None if change.body is None else self._kind.adapter.validate_json(change.body, extra="ignore")
            except ValidationError as error:
                _LOGGER.error(  # noqa: TRY400 - whose traceback says nothing more
                    "%s '%s' in the registry cannot be read and is left out: %s",
                    self._kind.label,
                    change.identifier,
                    "; ".join(fault["msg"] for fault in error.errors(include_input=False)),
                )
                continue
            if known is not None and known.object == item:
                continue
            if known is not None:
                self.remove(change.identifier)
                self._gone.setdefault(known.object.provider_id, {})[change.identifier] = known.object
                concerned.add(known.object.provider_id)
            if item is not None:
                self.add(item)
                concerned.add(item.provider_id)
        return concerned

    def gone(self, provider_id: str) -> list[RoutedObject]:
        """Objects that other workers unregistered, and that this worker's provider has not let go of yet."""
        return list(self._gone.get(provider_id, {}).values())

    def forget_gone(self, provider_id: str) -> None:
        self._gone.pop(provider_id, None)
