"""The objects of one kind by name: those that providers list, that users register, and of the run config."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import anyio

from llamastack.api.base import RoutedObject
from llamastack.api.definition import ResourceKind
from llamastack.api.inspect import ProviderStatus
from llamastack.provider.errors import (
    ConflictError,
    InvalidRequestError,
    LlamaStackError,
    NotFoundError,
    ProviderUnavailableError,
)
from llamastack.provider.store import Changes, Store
from llamastack.stack.in_turns import in_turns
from llamastack.stack.resources.kept_registrations import KeptRegistrations
from llamastack.stack.resources.last_listings import LastListings
from llamastack.stack.resources.reconciliation import Registrations
from llamastack.stack.resources.releases import Releases
from llamastack.stack.supervisor import SupervisedProvider

_SHORTEST_POLL_S = 1.0


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
        self._kept = KeptRegistrations(store, pair.resource_api)
        self._max_age_s = max_age_s
        self._notify = notify
        self._registrations = Registrations(pair, self._by_id)
        self._releases = Releases(store, pair.resource_api, pair.label)
        self._listings = LastListings(pair.resource_api, store)

    # ---- looking up ----------------------------------------------------------------------------------------------

    def resolve(self, name: str) -> tuple[RoutedObject, SupervisedProvider] | None:
        """(object, its instance), or None; dictionary look-ups only. For an alias, it is the object it stands for.

        Raises ProviderUnavailableError for a registered object that its provider cannot serve now.
        """
        item = self._registered(name)
        if item is None:
            return self._served(name)
        owner = self._by_id.get(item.provider_id)
        if owner is not None and (owner.provider is None or self._registrations.is_taken(item)):
            return (item if item.provider_resource_id is None else self._target(item)), owner
        raise ProviderUnavailableError(
            f"{self.pair.label} '{item.identifier}' is unavailable: {self._registrations.reason(item)}",
            provider_id=item.provider_id,
        )

    def _target(self, alias: RoutedObject) -> RoutedObject:
        # While the provider is down, it may not be known: hooks, which may choose another provider, see its name.
        name = {"identifier": alias.provider_resource_id, "provider_resource_id": None}
        return self._registrations.target(alias) or alias.model_copy(update=name)

    def _split(self, name: str) -> tuple[SupervisedProvider | None, str]:
        """(instance, identifier) where `name` can be read as `provider_id/identifier`, else (None, ...)."""
        provider_id, _, identifier = name.partition("/")
        return (self._by_id.get(provider_id) if identifier else None), identifier

    def _registered(self, name: str) -> RoutedObject | None:
        """The registered object that `name` means: `provider_id/identifier` first, then the plain name."""
        instance, identifier = self._split(name)
        if instance is not None:
            item = self._registrations.get(identifier)
            if item is not None and item.provider_id == instance.provider_id:
                return item
            if identifier in instance.served:
                return None
        return self._registrations.get(name)

    def _served(self, name: str) -> tuple[RoutedObject, SupervisedProvider] | None:
        qualified, identifier = self._split(name)
        if qualified is not None and identifier in qualified.served:
            return qualified.served[identifier], qualified
        for instance in self.instances:
            if name in instance.served:
                return instance.served[name], instance
        return None

    async def find(self, name: str) -> tuple[RoutedObject, SupervisedProvider] | None:
        """Like `resolve`, but ask the providers again before giving up.

        Raises ProviderUnavailableError also for what a provider that is down is known to serve.
        """
        found = self.resolve(name)
        if found is None:
            await self.refresh(_SHORTEST_POLL_S)
            found = self.resolve(name)
        if found is None:
            qualified, _ = self._split(name)
            for instance in self._not_healthy():
                if instance is qualified or self._listings.has(instance, name):
                    raise instance.unavailable()
            for instance in self._not_healthy():
                if not instance.reason and not self._listings.knows(instance):
                    error = instance.unavailable()
                    raise error.amend(f"{error.message}; whether it serves {self.pair.label} '{name}' is not known yet")
        return found

    def usable(self) -> Iterator[RoutedObject]:
        """The objects that are served now. The caller may await in between."""
        for instance in self.instances:
            if instance.status is ProviderStatus.healthy:
                yield from (*instance.served.values(), *self._registrations.taken_by(instance.provider_id))

    def why_incomplete(self) -> str | None:
        """A sentence on the providers that are down or have a note, such as that they list nothing without a key."""
        down = self._not_healthy()
        notes = [f"provider '{i.provider_id}' is " + (f"down ({i.reason})" if i.reason else "starting") for i in down]
        notes += [f"provider '{i.provider_id}' {i.note}" for i in self.instances if i.note and i not in down]
        return f"Note that {'; '.join(notes)}" if notes else None

    def _not_healthy(self) -> list[SupervisedProvider]:
        return [instance for instance in self.instances if instance.status is not ProviderStatus.healthy]

    async def refresh(self, max_age_s: float) -> None:
        """Ask every provider whose last answer is older than `max_age_s` seconds."""
        oldest = anyio.current_time() - max_age_s
        async with anyio.create_task_group() as group:
            for instance in self.instances:
                if instance.polled_at < oldest:
                    group.start_soon(instance.refresh)

    # ---- what users call -----------------------------------------------------------------------------------------

    async def list_all(self) -> list[RoutedObject]:
        """All objects, by provider in config order. An object that cannot be used now says why."""
        await self.refresh(self._max_age_s)
        found: dict[str, dict[str, RoutedObject]] = {i.provider_id: dict(i.served) for i in self.instances}
        for item in self._registrations.all():
            of_provider = found.setdefault(item.provider_id, {})
            of_provider.pop(item.identifier, None)  # the registered ones come last
            of_provider[item.identifier] = item
        return [self._shown(item) async for item in in_turns([i for items in found.values() for i in items.values()])]

    async def get(self, name: str) -> RoutedObject | None:
        """One object, or None."""
        if self._registered(name) is None and self._served(name) is None:
            await self.refresh(_SHORTEST_POLL_S)
        item = self._registered(name)
        found = (item, None) if item is not None else self._served(name)
        return None if found is None else self._shown(found[0])

    def _shown(self, item: RoutedObject) -> RoutedObject:
        """The object for people: what a registration left empty as the provider has it, and why it cannot be used."""
        instance = self._by_id.get(item.provider_id)
        if instance is None:
            served = item
        elif item.provider_resource_id is None:
            served = instance.served.get(item.identifier, item)
        else:
            served = self._registrations.target(item) or item
        left = () if served is item else type(served).model_fields.keys() - item.model_fields_set
        more = {name: getattr(served, name) for name in left if name != "unavailable_reason"}
        reason = self._registrations.reason(item)
        if reason is not None:
            more["unavailable_reason"] = reason
        return item.model_copy(update=more) if more else item

    async def register(self, item: RoutedObject) -> None:
        """Tell the provider, then keep the object.

        Raises InvalidRequestError (unknown provider_id), ConflictError, ProviderUnavailableError, or what the provider
        raises; nothing is kept then.
        """
        instance, item = self._owned(item)
        async with self._registrations.lock(item.identifier):
            there, version = await self._current(item.identifier)
            while there is None and await self._releases.wait(item.identifier):
                there, version = await self._current(item.identifier)
            if there is not None and there != item:
                raise ConflictError(
                    f"{self.pair.label} '{item.identifier}' is registered already, with provider "
                    f"'{there.provider_id}' and other settings; unregister it first"
                )
            if there is not None and there is self._registrations.get(item.identifier):
                return
            served_before = item.identifier in instance.served
            was_taken = False
            try:
                if item.provider_resource_id is None:
                    await self._registrations.ask_to_register(instance, item)
                else:
                    await self._find_target(instance, item)
                was_taken = True
                # The rest is carried out even if the caller is cancelled.
                with anyio.CancelScope(shield=True):
                    kept = await self._keep(instance, item, there, version)
            except BaseException as error:
                # A refusal leaves nothing to undo; a provider that was interrupted may have begun.
                if not served_before and (was_taken or not isinstance(error, Exception)):
                    with anyio.CancelScope(shield=True):
                        await self._registrations.undo(instance, item)
                raise
            if not kept:
                raise ConflictError(f"{self.pair.label} '{item.identifier}' was just registered by another worker")
        self._notify("llamastack_object_registered", self.pair.resource_api, item)

    async def _find_target(self, instance: SupervisedProvider, alias: RoutedObject) -> None:
        """Look for what an alias stands for, also in the store and at the provider.

        Raises InvalidRequestError if it is not there, and ProviderUnavailableError if that cannot be known now.
        """
        if self._registrations.target(alias, may_be_waiting=True) is None:
            record = await self._kept.get(alias.provider_resource_id or "")
            if record is not None:  # another worker may just have registered it
                await self._registrations.follow(Changes(record.version, [record], complete=False))
        if self._registrations.target(alias, may_be_waiting=True) is None:
            await instance.refresh(force=True)
        if self._registrations.target(alias, may_be_waiting=True) is None:
            down = instance.status is not ProviderStatus.healthy
            raise instance.unavailable() if down else self._registrations.no_target(alias)

    async def _current(self, identifier: str) -> tuple[RoutedObject | None, int | None]:
        """A registration as the run config or the store has it now, and the version of its record in the store.

        The store counts: another worker may have changed it before this one has followed.
        """
        if self._registrations.is_declared(identifier):
            return self._registrations.get(identifier), None
        record = await self._kept.get(identifier)
        return (None, None) if record is None else (self._registrations.read(record), record.version)

    async def _keep(
        self, instance: SupervisedProvider, item: RoutedObject, there: RoutedObject | None, version: int | None
    ) -> bool:
        """Put what its provider has taken into the store, unless it is `there`. Returns False if another is."""
        if there is None:
            record = await self._kept.write(item, version)
            if record is None:  # another worker was first
                there, version = await self._current(item.identifier)
                if there != item:
                    # At the same provider, the other worker's object is the one that would be undone.
                    if there is None or there.provider_id != instance.provider_id:
                        await self._registrations.undo(instance, item)
                    return False
            else:
                version = record.version
        self._registrations.add(item, version=version or 0, taken=True)
        instance.expire()
        return True

    async def unregister(self, name: str) -> None:
        """Forget the object, and have its provider release it.

        Raises NotFoundError, ConflictError for an object of the run config, StoreUnavailableError, or what the provider
        raises; the object stays registered then, unless the store fails, too, which the error says.
        """
        identifier, owner = self._meant(name)
        async with self._registrations.lock(identifier):
            item, version = await self._current(identifier)
            if (item is None and version is None) or (item is not None and owner not in (None, item.provider_id)):
                raise self._not_registered(name)
            if version is None:
                raise ConflictError(f"{self.pair.label} '{name}' stands in the run config; remove it there")
            instance = None if item is None else self._by_id.get(item.provider_id)
            is_alias = item is not None and item.provider_resource_id is not None
            if instance is not None and instance.provider is None and not is_alias:
                raise instance.unavailable()
            async with self._releases.releasing(identifier):
                if await self._forget(identifier, version):
                    if instance is not None and item is not None:
                        await self._release(instance, item)
                    if self._registrations.get(identifier) is item:  # no other worker has registered it again
                        self._registrations.remove(identifier)
        if instance is not None and not is_alias:
            instance.drop(identifier)
            # Only the provider knows whether it serves the object without a registration.
            await instance.refresh(force=True)
        if item is not None:
            self._notify("llamastack_object_unregistered", self.pair.resource_api, item)

    def _meant(self, name: str) -> tuple[str, str | None]:
        """(identifier, provider_id where `name` has it) of a registration, whether this worker knows it or not."""
        item = self._registered(name)
        if item is not None:
            return item.identifier, None
        instance, identifier = self._split(name)
        return (name, None) if instance is None else (identifier, instance.provider_id)

    def _not_registered(self, name: str) -> NotFoundError:
        served = self._served(name)
        return NotFoundError(
            f"{self.pair.label} '{name}' is not registered"
            + (f"; provider '{served[1].provider_id}' serves it by itself" if served else "")
        )

    async def _forget(self, identifier: str, version: int) -> bool:
        """Delete a record that has this version from the store. Returns False if another worker has changed it.

        The store is first: a provider may delete documents, which cannot be undone if the store then refuses.
        """
        deleted = await self._kept.delete(identifier, version)
        if deleted is not None:
            self._registrations.set_version(identifier, deleted.version)
            return True
        if (record := await self._kept.get(identifier)) is not None:
            await self._registrations.follow(Changes(record.version, [record], complete=False))
        return False

    async def _release(self, instance: SupervisedProvider, item: RoutedObject) -> None:
        """Have the provider release an object that the store keeps no more. If it fails, the store keeps it again."""
        try:
            await self._registrations.ask_to_unregister(instance, item)
        except LlamaStackError as error:
            try:
                record = await self._kept.write(item, None)
            except LlamaStackError as store_error:
                self._registrations.remove(item.identifier)
                raise error.amend(
                    f"{error.message}. {self.pair.label} '{item.identifier}' is registered no longer, as "
                    f"{store_error.message}"
                ) from None
            if record is not None:  # else another worker was first, which this one follows
                self._registrations.restore(item, record.version)
            raise

    def _owned(self, item: RoutedObject) -> tuple[SupervisedProvider, RoutedObject]:
        """(the instance that is to serve it, the object as that instance's)."""
        ids = ", ".join(self._by_id)
        param = f"{self.pair.object_name}.provider_id"
        if not item.provider_id and len(self.instances) > 1:
            raise InvalidRequestError(f"provider_id must be given, as there are several providers: {ids}", param=param)
        instance = self._by_id.get(item.provider_id or self.instances[0].provider_id)
        if instance is None:
            raise InvalidRequestError(
                f"'{item.provider_id}' is no provider of API '{self.pair.routed_api}'; allowed: {ids}", param=param
            )
        own = {"provider_id": instance.provider_id, "unavailable_reason": None}
        if item.provider_resource_id == item.identifier:  # so newer clients say that it is no alias
            own["provider_resource_id"] = None
        return instance, item.model_copy(update=own)

    # ---- what the stack calls ------------------------------------------------------------------------------------

    def declare(self, items: Iterable[RoutedObject]) -> None:
        """Take in the objects of the run config; they are registered with their providers at start."""
        for item in items:
            self._registrations.declare(self._owned(item)[1])

    async def load_listings(self) -> None:
        """Take in what the store keeps of the providers' last listings."""
        await self._listings.load(self.instances)

    async def follow(self, changes: Changes) -> None:
        """Take in what the store keeps and what other workers change in it, and have this worker's providers follow."""
        await self._registrations.follow(changes)

    async def polled(self, instance: SupervisedProvider) -> None:
        """An instance has said what it serves. Call it in the instance's own task."""
        await self._registrations.reconcile(instance)
        await self._listings.learn(instance)

    def refused(self, instance: SupervisedProvider) -> dict[str, str]:
        """Why it does not take what is registered with it, by identifier; empty while it is down."""
        refused = self._registrations.refused() if instance.status is ProviderStatus.healthy else []
        mine = [item for item in refused if item.provider_id == instance.provider_id]
        return {item.identifier: reason for item in mine if (reason := self._registrations.reason(item))}

    def count(self, instance: SupervisedProvider) -> int | None:
        """How many objects an instance serves; None while it is down."""
        if instance.status is not ProviderStatus.healthy:
            return None
        taken = self._registrations.taken_by(instance.provider_id)
        return len(instance.served) + sum(item.identifier not in instance.served for item in taken)
