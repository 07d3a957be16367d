"""What is served under which name: asked of the providers, registered by users, declared in the run config."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any
from weakref import WeakValueDictionary

import anyio
from pydantic import ValidationError

from llamastack.api.definition import ResourceKind
from llamastack.api.inspect import ProviderStatus
from llamastack.provider.deps import replaying
from llamastack.provider.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    ObjectNotFoundError,
    ProviderUnavailableError,
)
from llamastack.stack.resources.last_listings import LastListings, names_in_config
from llamastack.stack.resources.provider_calls import HOOK_TIMEOUT_S, ProviderCalls
from llamastack.stack.stores import Store, StoredObject
from llamastack.stack.supervisor import SupervisedProvider

_LOGGER = logging.getLogger("llamastack.stack")
_SHORTEST_ROUND_S = 1.0
_REPLAYS_AT_ONCE = 16
_MOST_NAMES = 1000
_NOT_YET = "not registered with its provider yet"


@dataclass(slots=True)
class Registered:
    """A registered object.

    reason: why it cannot be used now. declared: it stands in the run config, not the store. listed: its provider has
    listed it, too, so that it is missed when it vanishes there. warned: the log has told that it was refused.
    advice: what is to be known of it although it can be used.
    """

    object: Any
    declared: bool
    reason: str | None = None
    listed: bool = False
    warned: bool = False
    advice: str | None = None


class ResourceCatalogue:
    """The objects of one kind over all instances of one API.

    A plain name is that of a registered object first, then of the first provider in config order that serves it;
    `provider_id/identifier` names the object of that provider.
    """

    def __init__(
        self,
        pair: ResourceKind,
        instances: Sequence[SupervisedProvider],
        store: Store,
        *,
        max_age_s: float,
        notify: Callable[..., None],
    ) -> None:
        self.pair = pair
        self.instances = tuple(instances)
        self._by_id = {instance.provider_id: instance for instance in instances}
        self._hooks = ProviderCalls(pair)
        self._store = store
        self._max_age_s = max_age_s
        self._notify = notify
        self._registered: dict[str, Registered] = {}
        self._by_provider: dict[str, dict[str, Registered]] = {}
        self._gone: dict[str, list[Any]] = {}
        # Weak: a lock is there as long as somebody holds it or waits for it.
        self._locks: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()
        self._prepared: dict[str, Any] = {}
        self.advice: Callable[[Any], str | None] | None = None
        """What to tell people of an object that they register, beside what its provider says."""
        self.listings = LastListings(pair.resource_api, store)
        self._in_config = {i.provider_id: names_in_config(i.plan.config, pair.resource_api) for i in instances}
        for instance in instances:
            instance.on_polled = self._catch_up

    # ---- looking up ----------------------------------------------------------------------------------------------

    def resolve(self, name: str) -> tuple[Any, SupervisedProvider] | None:
        """(object, its instance), or None; dictionary look-ups only.

        Raises ProviderUnavailableError for a registered object that its provider cannot serve now.
        """
        entry = self._entry(name)
        if entry is not None:
            owner = self._by_id.get(entry.object.provider_id)
            return self._usable(entry, owner), owner  # type: ignore[return-value]  # without owner, _usable raises
        for instance, identifier in self._qualified(name):
            found = instance.served.get(identifier)
            if found is not None:
                return found, instance
        for instance in self.instances:
            found = instance.served.get(name)
            if found is not None:
                return found, instance
        return None

    def _qualified(self, name: str) -> Iterator[tuple[SupervisedProvider, str]]:
        """(instance, identifier) where `name` can be read as `provider_id/identifier`."""
        if "/" in name:
            provider_id, _, identifier = name.partition("/")
            instance = self._by_id.get(provider_id)
            if instance is not None:
                yield instance, identifier

    def _entry(self, name: str) -> Registered | None:
        """The registered object that `name` means: `provider_id/identifier` first, then the plain name."""
        for instance, identifier in self._qualified(name):
            entry = self._by_provider.get(instance.provider_id, {}).get(identifier)
            if entry is not None:
                return entry
            if identifier in instance.served:
                return None
        return self._registered.get(name)

    def _usable(self, entry: Registered, owner: SupervisedProvider | None) -> Any:
        if owner is None or (entry.reason is not None and owner.provider is not None):
            raise ProviderUnavailableError(
                f"{self.pair.label} '{entry.object.identifier}' is unavailable: {self._reason(entry, owner)}",
                provider_id=entry.object.provider_id,
            )
        return entry.object

    async def find(self, name: str, param: str | None = None) -> tuple[Any, SupervisedProvider]:
        """Like `resolve`, but ask the providers again before giving up.

        Raises ProviderUnavailableError for what a provider that is down is known to serve, ObjectNotFoundError for
        anything else, naming what is served.
        """
        found = self.resolve(name)
        if found is None:
            await self.refresh(_SHORTEST_ROUND_S)
            found = self.resolve(name)
        if found is None:
            for instance, _ in self._qualified(name):
                if instance.status is not ProviderStatus.healthy:
                    raise instance.unavailable()
            down = [i for i in self.instances if i.status is not ProviderStatus.healthy]
            for instance in down:
                if name in self._in_config[instance.provider_id] or self.listings.has(instance, name):
                    raise instance.unavailable()
            notes = [f"provider '{i.provider_id}' is down ({i.reason or 'it is starting'})" for i in down]
            notes += [f"provider '{i.provider_id}' {i.note}" for i in self.instances if i.note and i not in down]
            note = "; ".join(notes)
            raise ObjectNotFoundError(
                self.pair.label,
                name,
                available=islice(self._names(), _MOST_NAMES),
                note=f"Note that {note}" if note else None,
                param=param,
            )
        return found

    def _names(self) -> Iterator[str]:
        for instance in self.instances:
            if instance.status is ProviderStatus.healthy:
                yield from instance.served
        yield from (name for name, entry in self._registered.items() if entry.reason is None)

    async def refresh(self, max_age_s: float) -> None:
        """Ask every provider whose last answer is older than `max_age_s` seconds."""
        oldest = anyio.current_time() - max_age_s
        stale = [i for i in self.instances if i.refreshed_at < oldest and i.provider is not None]
        if len(stale) == 1:
            await stale[0].refresh()
        elif stale:
            async with anyio.create_task_group() as group:
                for instance in stale:
                    group.start_soon(instance.refresh)

    # ---- what users call -----------------------------------------------------------------------------------------

    async def list_all(self) -> list[Any]:
        """Everything, by provider in config order; what cannot be used now says why."""
        await self.refresh(self._max_age_s)
        listed: list[Any] = []
        for instance in self.instances:
            registered = self._by_provider.get(instance.provider_id, {})
            down = None if instance.status is ProviderStatus.healthy else instance.unavailable().message
            for identifier, item in instance.served.items():
                if identifier not in registered:
                    listed.append(item if down is None else item.model_copy(update={"unavailable_reason": down}))
            listed += [self._shown(entry, instance) for entry in registered.values()]
        for provider_id, registered in self._by_provider.items():
            if provider_id not in self._by_id:
                listed += [self._shown(entry, None) for entry in registered.values()]
        return listed

    async def get(self, name: str) -> Any:
        """One object, or None."""
        for attempt in range(2):
            entry = self._entry(name)
            if entry is not None:
                return self._shown(entry, self._by_id.get(entry.object.provider_id))
            found = self.resolve(name)
            if found is not None:
                item, instance = found
                if instance.status is ProviderStatus.healthy:
                    return item
                return item.model_copy(update={"unavailable_reason": instance.unavailable().message})
            if attempt == 0:
                await self.refresh(_SHORTEST_ROUND_S)
        return None

    def _reason(self, entry: Registered, instance: SupervisedProvider | None) -> str | None:
        if instance is None:
            return f"provider '{entry.object.provider_id}' is not configured"
        if instance.status is not ProviderStatus.healthy:
            return instance.unavailable().message
        return entry.reason

    def _shown(self, entry: Registered, instance: SupervisedProvider | None) -> Any:
        """The object for people: what the registration left empty as the provider has it, and why it cannot be used."""
        more: dict[str, Any] = {}
        served = None if instance is None else instance.served.get(entry.object.identifier)
        if served is not None:
            left = type(served).model_fields.keys() - entry.object.model_fields_set
            more = {name: getattr(served, name) for name in left if name != "unavailable_reason"}
        reason = self._reason(entry, instance)
        if reason is not None:
            more["unavailable_reason"] = reason
        return entry.object.model_copy(update=more) if more else entry.object

    async def register(self, item: Any) -> None:
        """Tell the provider, then keep the object.

        Raises InvalidRequestError (unknown provider_id), ConflictError, ProviderUnavailableError, or what the provider
        raises; nothing is kept then.
        """
        instance = self._owner(item)
        item = item.model_copy(update={"provider_id": instance.provider_id, "unavailable_reason": None})
        async with self._lock(item.identifier):
            known = self._registered.get(item.identifier)
            if known is not None:
                if known.object == item:
                    return
                raise ConflictError(
                    f"{self.pair.label} '{item.identifier}' is registered already, with provider "
                    f"'{known.object.provider_id}' and other settings; unregister it first"
                )
            served_before = item.identifier in instance.served
            told = False
            try:
                await self._hooks.register(instance, item)
                told = True
                # From here on a caller that goes away changes nothing.
                with anyio.CancelScope(shield=True):
                    kept = await self._keep(instance, item)
            except BaseException as error:
                # A refusal leaves nothing to undo; a provider that was interrupted may have begun.
                if not served_before and (told or not isinstance(error, Exception)):
                    with anyio.CancelScope(shield=True):
                        await self._hooks.undo(instance, item)
                raise
            if not kept:
                raise ConflictError(f"{self.pair.label} '{item.identifier}' was just registered by another worker")
        self._notify("llamastack_object_registered", api=self.pair.resource_api, object=item)

    async def _keep(self, instance: SupervisedProvider, item: Any) -> bool:
        stored = StoredObject(
            self.pair.resource_api, item.identifier, item.provider_id, item.model_dump_json(exclude_none=True)
        )
        if not await self._store.put(stored):
            there = await self._stored(item.identifier)
            if there != stored:
                # At the same provider, the other worker's object is the one that would be undone.
                if there is None or there.provider_id != instance.provider_id:
                    await self._hooks.undo(instance, item)
                return False
        entry = Registered(item, declared=False)
        self._add(entry)
        self._advise([entry])
        instance.refreshed_at = float("-inf")
        return True

    async def unregister(self, name: str) -> None:
        """Tell the provider, then forget the object.

        Raises NotFoundError, ConflictError for what stands in the run config, or what the provider raises; it stays
        registered then.
        """
        entry = self._entry(name)
        if entry is None:
            served = self.resolve(name)
            raise NotFoundError(
                f"{self.pair.label} '{name}' is not registered"
                + (f"; provider '{served[1].provider_id}' serves it by itself" if served else "")
            )
        item = entry.object
        if entry.declared:
            raise ConflictError(f"{self.pair.label} '{name}' stands in the run config; remove it there")
        instance = self._by_id.get(item.provider_id)
        async with self._lock(item.identifier):
            if instance is not None and instance.provider is None:
                raise instance.unavailable()
            # Not half: once the provider is told, the record goes too, even when the caller has gone away.
            with anyio.CancelScope(shield=True):
                if instance is not None:
                    await self._hooks.unregister(instance, item)
                await self._store.delete(self.pair.resource_api, item.identifier)
                self._remove(item.identifier)
        if instance is not None:
            await self._ask_anew(instance, item)
        self._notify("llamastack_object_unregistered", api=self.pair.resource_api, object=item)

    def _owner(self, item: Any) -> SupervisedProvider:
        ids = ", ".join(self._by_id)
        if item.provider_id:
            instance = self._by_id.get(item.provider_id)
            if instance is None:
                raise InvalidRequestError(
                    f"'{item.provider_id}' is no provider of API '{self.pair.routed_api}'; allowed: {ids}",
                    param=f"{self.pair.object_name}.provider_id",
                )
            return instance
        if len(self.instances) != 1:
            raise InvalidRequestError(
                f"provider_id must be given, as there are several providers: {ids}",
                param=f"{self.pair.object_name}.provider_id",
            )
        return self.instances[0]

    def _lock(self, identifier: str) -> anyio.Lock:
        lock = self._locks.get(identifier)
        if lock is None:
            lock = self._locks[identifier] = anyio.Lock()
        return lock

    # ---- the provider's side -------------------------------------------------------------------------------------

    async def _stored(self, identifier: str) -> StoredObject | None:
        _, items = await self._store.changes_since(0)
        return next((i for i in items if (i.kind, i.identifier) == (self.pair.resource_api, identifier)), None)

    def declare(self, items: Iterable[Any]) -> None:
        """Take in the objects of the run config; they are registered with their providers at start."""
        for item in items:
            instance = self._owner(item)
            own = item.model_copy(update={"provider_id": instance.provider_id, "unavailable_reason": None})
            self._add(Registered(own, declared=True, reason=_NOT_YET))

    def take_in(self, changes: Iterable[StoredObject]) -> set[SupervisedProvider]:
        """Take in what the store says; gives back the instances that have something to catch up with."""
        concerned: set[str] = set()
        for change in changes:
            known = self._registered.get(change.identifier)
            if known is not None and known.declared:
                if change.body is not None and known.object.provider_id != change.provider_id:
                    _LOGGER.warning(
                        "%s '%s' stands in the run config and, otherwise, in the registry: the run config counts",
                        self.pair.label,
                        change.identifier,
                    )
                continue
            item = None
            if change.body is not None:
                try:
                    item = self.pair.adapter.validate_json(change.body, extra="ignore")
                except ValidationError as error:
                    _LOGGER.error(  # noqa: TRY400 - whose traceback says nothing more
                        "%s '%s' in the registry cannot be read and is left out: %s",
                        self.pair.label,
                        change.identifier,
                        "; ".join(fault["msg"] for fault in error.errors(include_input=False)),
                    )
                    continue
            if known is not None and known.object == item:
                continue
            if known is not None:
                self._remove(change.identifier)
                self._gone.setdefault(known.object.provider_id, []).append(known.object)
                concerned.add(known.object.provider_id)
            if item is not None:
                self._add(Registered(item, declared=False, reason=_NOT_YET))
                concerned.add(item.provider_id)
        return {instance for instance in self.instances if instance.provider_id in concerned}

    async def follow(self, changes: list[StoredObject]) -> None:
        """What other workers registered and unregistered, carried out at this worker's providers too."""
        for instance in self.take_in(changes):
            for item in self._gone.get(instance.provider_id, ()):
                instance.served.pop(item.identifier, None)
            instance.wake()

    async def _catch_up(self, instance: SupervisedProvider) -> None:
        """In the instance's own task: let go of what other workers unregistered, register what is not yet."""
        self.listings.learn(instance)
        gone = self._gone.pop(instance.provider_id, [])
        for item in gone:
            if item.identifier not in self._by_provider.get(instance.provider_id, {}):
                await self._hooks.forget(instance, item)
        mine = self._by_provider.get(instance.provider_id, {}).values()
        if self._prepared.get(instance.provider_id) is not instance.provider:
            # Started anew after a failure: it knows of nothing.
            self._prepared[instance.provider_id] = instance.provider
            for entry in mine:
                entry.reason = entry.reason or _NOT_YET
        for entry in mine:
            listed = entry.object.identifier in instance.served
            if entry.listed and not listed:
                entry.reason = entry.reason or "its provider does not serve it any more"
            entry.listed = listed
        waiting = [entry for entry in mine if entry.reason is not None]
        if waiting:
            await self._replay(instance, waiting)
        self._advise(mine)
        if gone:
            instance.wake()  # what it lists may have changed

    async def _ask_anew(self, instance: SupervisedProvider, gone: Any) -> None:
        """After an unregistration only the provider knows whether it still serves the object by itself."""
        instance.served.pop(gone.identifier, None)
        await instance.refresh(anew=True)

    async def _replay(self, instance: SupervisedProvider, waiting: Sequence[Registered]) -> None:
        """Register with a provider what it has not taken yet; what it refuses stays, with the reason."""
        left = iter(waiting)

        async def work() -> None:
            at: Registered | None = None
            while True:
                # One scope for many entries: with one each, timers would cost more than the work.
                with anyio.CancelScope(deadline=anyio.current_time() + HOOK_TIMEOUT_S) as limit:
                    for at in left:
                        now = anyio.current_time()
                        if limit.deadline - now < HOOK_TIMEOUT_S / 2:
                            limit.deadline = now + HOOK_TIMEOUT_S
                        await self._replay_one(instance, at)
                if not limit.cancelled_caught or at is None:
                    return
                self._refused(instance, at, instance.told(TimeoutError()).message)

        with replaying():
            async with anyio.create_task_group() as group:
                for _ in range(min(_REPLAYS_AT_ONCE, len(waiting))):
                    group.start_soon(work)

    async def _replay_one(self, instance: SupervisedProvider, entry: Registered) -> None:
        identifier = entry.object.identifier
        if self._registered.get(identifier) is not entry:
            return
        try:
            await getattr(instance.provider, self.pair.register_hook)(**{self.pair.object_name: entry.object})
        except BaseException as raised:
            self._refused(instance, entry, instance.told(raised).message)
            return
        entry.reason = None
        if entry.warned:
            entry.warned = False
            _LOGGER.info("%s takes %s '%s' now", instance.provider_id, self.pair.label, identifier)
        if self._registered.get(identifier) is not entry:
            # Unregistered or replaced while the provider was at it. Looked at afterwards, as it hardly ever happens and
            # a lock for every object would be what a start with many objects takes longest for.
            async with self._lock(identifier):
                current = self._registered.get(identifier)
                if current is None:
                    await self._hooks.undo(instance, entry.object)
                else:
                    current.reason = _NOT_YET

    def _refused(self, instance: SupervisedProvider, entry: Registered, reason: str) -> None:
        entry.reason = reason
        if not entry.warned:  # once, as it is tried again and again
            entry.warned = True
            _LOGGER.warning(
                "%s does not take %s '%s', which %s: %s",
                instance.provider_id,
                self.pair.label,
                entry.object.identifier,
                "the run config registers" if entry.declared else "was registered",
                reason,
            )

    def _advise(self, entries: Iterable[Registered]) -> None:
        if self.advice is None:
            return
        for entry in entries:
            if entry.reason is None and entry.advice is None:
                entry.advice = self.advice(entry.object)
                if entry.advice is not None:
                    _LOGGER.warning("%s", entry.advice)

    def advised(self, instance: SupervisedProvider) -> list[str]:
        """What is to be known of the objects that are registered with it."""
        mine = self._by_provider.get(instance.provider_id, {}).values()
        return [entry.advice for entry in mine if entry.advice is not None]

    def refused(self, instance: SupervisedProvider, *, declared: bool = False) -> dict[str, str]:
        """Why it does not take what is registered with it, by identifier; empty while it is down.

        declared: only of what stands in the run config.
        """
        if instance.status is not ProviderStatus.healthy:
            return {}
        mine = self._by_provider.get(instance.provider_id, {})
        return {name: entry.reason for name, entry in mine.items() if entry.reason and (entry.declared or not declared)}

    def _add(self, entry: Registered) -> None:
        self._remove(entry.object.identifier)
        self._registered[entry.object.identifier] = entry
        self._by_provider.setdefault(entry.object.provider_id, {})[entry.object.identifier] = entry

    def _remove(self, identifier: str) -> None:
        known = self._registered.pop(identifier, None)
        if known is not None:
            of_provider = self._by_provider[known.object.provider_id]
            del of_provider[identifier]
            if not of_provider:
                del self._by_provider[known.object.provider_id]

    def count(self, instance: SupervisedProvider) -> int | None:
        """How many objects an instance serves; None while it is down."""
        if instance.status is not ProviderStatus.healthy:
            return None
        registered = self._by_provider.get(instance.provider_id, {})
        more = (name for name, entry in registered.items() if entry.reason is None and name not in instance.served)
        return len(instance.served) + sum(1 for _ in more)
