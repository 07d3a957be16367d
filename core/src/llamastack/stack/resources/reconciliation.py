"""The objects that the run config and users registered, and what each provider has taken of them.

The first is the desired state, the second the actual one. After every poll the difference is worked off: after a
restart, when a provider comes back, when it has lost an object, and when another worker registers or unregisters one.

A provider never hears of an alias: the stack sends its calls to what it stands for, as long as that is served.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Set
from weakref import WeakValueDictionary

import anyio
from anyio.lowlevel import checkpoint
from pydantic import ValidationError

from llamastack.api.base import RoutedObject
from llamastack.api.definition import ResourceKind
from llamastack.api.inspect import ProviderStatus
from llamastack.provider.deps import replaying
from llamastack.provider.errors import (
    InvalidRequestError,
    LlamaStackError,
    NotFoundError,
    NotSupportedError,
    ProviderUnavailableError,
    raise_translated,
)
from llamastack.provider.store import Changes, Record
from llamastack.stack.in_turns import IN_ONE_TURN, in_turns
from llamastack.stack.supervisor import SupervisedProvider

_LOGGER = logging.getLogger("llamastack.stack")
_REPLAYS_AT_ONCE = 16
HOOK_TIMEOUT_S = 60.0
"""How long a hook may take that no user waits for."""


class Registrations:
    """The registrations of one kind of object.

    instances: the providers of the kind, by provider_id.
    """

    def __init__(self, kind: ResourceKind, instances: Mapping[str, SupervisedProvider]) -> None:
        self._kind = kind
        self._instances = instances
        self._registered: dict[str, RoutedObject] = {}
        # Of the registrations in the store, and of those that were deleted there, until the follower has seen that.
        self._versions: dict[str, int] = {}
        self._declared: set[str] = set()
        self._taken: dict[str, dict[str, RoutedObject]] = {provider_id: {} for provider_id in instances}
        self._taken_by: dict[str, object] = {}
        # What a provider has taken, does not list, and has confirmed since.
        self._unlisted: dict[str, set[str]] = {provider_id: set() for provider_id in instances}
        self._aliases: dict[str, RoutedObject] = {}
        self._refused: dict[str, str] = {}
        # Weak: a lock is there as long as somebody holds it or waits for it.
        self._locks: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()

    # ---- the desired state ---------------------------------------------------------------------------------------

    def get(self, identifier: str) -> RoutedObject | None:
        return self._registered.get(identifier)

    def all(self) -> Iterable[RoutedObject]:
        return self._registered.values()

    def lock(self, identifier: str) -> anyio.Lock:
        """Held while one object is registered or unregistered."""
        lock = self._locks.get(identifier)
        if lock is None:
            lock = self._locks[identifier] = anyio.Lock()
        return lock

    def add(self, item: RoutedObject, *, version: int = 0, taken: bool = False) -> None:
        """Add an object, or replace the one of that name.

        version: of its record in the store; 0 for an object of the run config.
        taken: whether its provider has taken it.
        """
        known = self._registered.get(item.identifier)
        self.remove(item.identifier)
        self._versions[item.identifier] = version
        self._registered[item.identifier] = item
        if item.provider_resource_id is not None:
            self._aliases[item.identifier] = item
        elif taken:
            self._taken[item.provider_id][item.identifier] = item
        if known is not None and known.provider_id in self._instances and known.provider_id != item.provider_id:
            self._instances[known.provider_id].drop(item.identifier)
            self._wake({known.provider_id})

    def declare(self, item: RoutedObject) -> None:
        """Add an object of the run config."""
        self.add(item)
        self._declared.add(item.identifier)

    def is_declared(self, identifier: str) -> bool:
        """Whether it is in the run config, and so not in the store."""
        return identifier in self._declared

    def remove(self, identifier: str) -> None:
        """Forget an object."""
        self._registered.pop(identifier, None)
        self._aliases.pop(identifier, None)
        self._refused.pop(identifier, None)

    def set_version(self, identifier: str, version: int) -> None:
        """The store has this version of an object, or of its deletion; the follower leaves it alone."""
        self._versions[identifier] = max(version, self._versions.get(identifier, 0))

    def restore(self, item: RoutedObject, version: int) -> None:
        """The store has an object again that was deleted there. It may have been followed meanwhile.

        Its provider is asked to take it again: it may have released it before it failed.
        """
        self._unlisted[item.provider_id].discard(item.identifier)
        if self._registered.get(item.identifier) is item:
            self.set_version(item.identifier, version)
        elif version > self._versions.get(item.identifier, 0):
            self.add(item, version=version)
        self._wake({item.provider_id})

    def read(self, record: Record) -> RoutedObject | None:
        """The object that the store keeps in a record; None, and a line in the log, if it cannot be read."""
        known = self._registered.get(record.key)
        if known is not None and self._versions[record.key] == record.version:
            return known
        try:
            item = self._kind.adapter.validate_json(record.value or "", extra="ignore")
        except ValidationError as error:
            _LOGGER.error(  # noqa: TRY400 - the traceback says nothing more
                "%s '%s' in the store cannot be read and is left out: %s",
                self._kind.label,
                record.key,
                "; ".join(fault["msg"] for fault in error.errors(include_input=False)),
            )
            return None
        return known if known == item else item

    async def follow(self, changes: Changes) -> None:
        """Take in changes of the store, and have the providers that they concern follow."""
        concerned: set[str] = set()
        async for record in in_turns((*changes.records, *self._vanished(changes))):
            if record.version > self._versions.get(record.key, 0):
                concerned |= self._take_in(record)
            if record.value is None and record.key not in self._registered:  # else it was registered again since
                self._versions.pop(record.key, None)
        self._wake(concerned)

    def _wake(self, provider_ids: Set[str]) -> None:
        for provider_id in provider_ids & self._instances.keys():
            if self._instances[provider_id].provider is not None:
                self._instances[provider_id].wake()

    def _vanished(self, changes: Changes) -> list[Record]:
        """The registrations known from the store that are not among the changes although these are complete."""
        if not changes.complete:
            return []
        there = {record.key for record in changes.records}
        # A newer one was registered here after the changes were read.
        gone = [key for key, version in self._versions.items() if version < changes.version and key not in there]
        return [Record(self._kind.resource_api, key, None, changes.version) for key in gone]

    def _take_in(self, record: Record) -> set[str]:
        """Take in one change. Returns the providers of what came and went."""
        known = self._registered.get(record.key)
        item = None if record.value is None else self.read(record)
        if self.is_declared(record.key):
            if known is not None and item is not None and known.provider_id != item.provider_id:
                _LOGGER.warning(
                    "%s '%s' stands in the run config and, with another provider, in the store: the run config counts",
                    self._kind.label,
                    record.key,
                )
            return set()
        self._versions[record.key] = record.version
        if item is known or (item is None and record.value is not None):
            return set()
        if known is not None and known.provider_id in self._instances:
            self._instances[known.provider_id].drop(record.key)
        self.remove(record.key)
        self._versions[record.key] = record.version
        if item is not None:
            self.add(item, version=record.version)
        return {each.provider_id for each in (known, item) if each is not None}

    # ---- the actual state ----------------------------------------------------------------------------------------

    def is_taken(self, item: RoutedObject) -> bool:
        """Whether its provider has taken a registered object as it is, or serves what an alias stands for."""
        if item.provider_resource_id is not None:
            return self.target(item) is not None
        taken = self._taken.get(item.provider_id)
        return taken is not None and taken.get(item.identifier) is item

    def taken_by(self, provider_id: str) -> list[RoutedObject]:
        """The registrations with one provider that it has taken."""
        taken = [item for item in self._taken[provider_id].values() if self._registered.get(item.identifier) is item]
        aliases = [each for each in self._aliases.values() if each.provider_id == provider_id and self.is_taken(each)]
        return taken + aliases

    def refused(self) -> list[RoutedObject]:
        """The registrations that a provider has refused, and the aliases that had no target at the last poll."""
        return [item for name in self._refused if (item := self._registered.get(name))]

    def reason(self, item: RoutedObject) -> str | None:
        """Why a registered or listed object cannot be used now."""
        instance = self._instances.get(item.provider_id)
        if instance is None:
            return f"provider '{item.provider_id}' is not configured"
        if instance.status is not ProviderStatus.healthy:
            return instance.unavailable().message
        if self._registered.get(item.identifier) is item and not self.is_taken(item):
            if item.provider_resource_id is not None:
                return self.no_target(item).message
            return self._refused.get(item.identifier, "its provider has not taken it yet, or has lost it")
        return None

    def target(self, alias: RoutedObject, *, may_be_waiting: bool = False) -> RoutedObject | None:
        """What an alias stands for: an object that its provider lists, or that is registered there; None without one.

        may_be_waiting: also one that is registered and that its provider has not taken yet.
        """
        name = alias.provider_resource_id or ""
        item = self._registered.get(name)
        if item is None or item.provider_id != alias.provider_id or item.provider_resource_id is not None:
            item = self._instances[alias.provider_id].served.get(name)
        elif not may_be_waiting and not self.is_taken(item):
            item = None
        return item if type(item) is type(alias) else None

    def no_target(self, alias: RoutedObject) -> InvalidRequestError:
        """The error for an alias that stands for nothing."""
        return InvalidRequestError(
            f"provider '{alias.provider_id}' serves no {self._kind.label} '{alias.provider_resource_id}' that "
            f"'{alias.identifier}' could stand for; allowed: what it lists, and what is registered there and is no "
            "alias, of the same type",
            param=f"{self._kind.object_name}.provider_resource_id",
            provider_id=alias.provider_id,
        )

    # ---- working off the difference ------------------------------------------------------------------------------

    async def reconcile(self, instance: SupervisedProvider) -> None:
        """Bring a provider to the desired state. Call it after each poll, in the instance's own task."""
        if self._taken_by.get(instance.provider_id) is not instance.provider:
            self._taken_by[instance.provider_id] = instance.provider
            self._taken[instance.provider_id] = {}
            self._unlisted[instance.provider_id] = set()
        taken = self._taken[instance.provider_id]
        gone = [item async for item in in_turns([*taken.values()]) if self._registered.get(item.identifier) is not item]
        for item in gone:
            async with self.lock(item.identifier):  # it may be registered again meanwhile
                if taken.get(item.identifier) is item and self._registered.get(item.identifier) is not item:
                    del taken[item.identifier]  # also if the provider fails to release it
                    await self.undo(instance, item, self._kind.forget_hook)
        await self._replay(instance, await self._waiting(instance))
        await self._look_at_aliases(instance)
        if gone:
            instance.wake()  # what it lists may have changed

    async def _waiting(self, instance: SupervisedProvider) -> list[RoutedObject]:
        """The registrations that a provider is asked to take: those that it has not taken, and those in doubt.

        It may have lost what it took since its last listing, or list none of what it takes: it is asked once.
        """
        waiting: list[RoutedObject] = []
        unlisted: set[str] = set()
        async for item in in_turns([*self._registered.values()]):
            if item.provider_id != instance.provider_id or item.provider_resource_id is not None:
                continue
            if not self.is_taken(item):
                waiting.append(item)
            elif item.identifier not in instance.served:
                unlisted.add(item.identifier)
                if item.identifier not in self._unlisted[instance.provider_id]:
                    waiting.append(item)
        self._unlisted[instance.provider_id] = unlisted
        return waiting

    async def _look_at_aliases(self, instance: SupervisedProvider) -> None:
        """Log which aliases lose what they stand for, and which have it again."""
        mine = [each for each in self._aliases.values() if each.provider_id == instance.provider_id]
        async for alias in in_turns(mine):
            if self.is_taken(alias):
                self._refused.pop(alias.identifier, None)
            elif alias.identifier not in self._refused:
                self._is_refused(instance, alias, self.no_target(alias))

    async def _replay(self, instance: SupervisedProvider, waiting: list[RoutedObject]) -> None:
        left = iter(waiting)

        async def work() -> None:
            # One scope for many registrations: with one each, timers would cost more than the work.
            with anyio.move_on_after(HOOK_TIMEOUT_S) as limit:
                for number, item in enumerate(left):
                    if number % (IN_ONE_TURN // _REPLAYS_AT_ONCE) == 0:
                        await checkpoint()
                    if limit.deadline < anyio.current_time() + HOOK_TIMEOUT_S / 2:
                        limit.deadline = anyio.current_time() + HOOK_TIMEOUT_S
                    await self._replay_one(instance, item)
            if limit.cancelled_caught:
                self._is_refused(instance, item, instance.translate_error(TimeoutError()))
                group.start_soon(work)

        with replaying():
            async with anyio.create_task_group() as group:
                for _ in range(min(_REPLAYS_AT_ONCE, len(waiting))):
                    group.start_soon(work)

    async def _replay_one(self, instance: SupervisedProvider, item: RoutedObject) -> None:
        identifier = item.identifier
        if self._registered.get(identifier) is not item:
            return
        try:
            await getattr(instance.provider, self._kind.register_hook)(**{self._kind.object_name: item})
        except BaseException as raised:
            if self.is_taken(item):
                del self._taken[instance.provider_id][identifier]
            self._is_refused(instance, item, instance.translate_error(raised))
            return
        if self._registered.get(identifier) is item:
            self._taken[instance.provider_id][identifier] = item
            if self._refused.pop(identifier, None) is not None:
                _LOGGER.info("%s takes %s '%s' now", instance.provider_id, self._kind.label, identifier)
            return
        # Unregistered during the call. This is checked afterwards, because it hardly ever happens: a lock for every
        # object would take most of the time of a start with many objects.
        async with self.lock(identifier):
            if identifier not in self._registered:
                await self.undo(instance, item)

    def _is_refused(self, instance: SupervisedProvider, item: RoutedObject, error: LlamaStackError) -> None:
        if self._registered.get(item.identifier) is not item:
            return
        if item.identifier not in self._refused:  # else it was logged before: the stack tries again and again
            _LOGGER.warning(
                "%s does not take %s '%s', which %s: %s",
                instance.provider_id,
                self._kind.label,
                item.identifier,
                "the run config registers" if self.is_declared(item.identifier) else "was registered",
                error.message,
            )
        self._refused[item.identifier] = error.message

    # ---- the provider's hooks ------------------------------------------------------------------------------------

    async def ask_to_register(self, instance: SupervisedProvider, item: RoutedObject) -> None:
        """Raises what the provider raises, as an error of the family."""
        try:
            if instance.provider is None:
                raise instance.unavailable()
            if (replaced := self._taken[instance.provider_id].pop(item.identifier, None)) not in (None, item):
                await self.undo(instance, replaced, self._kind.forget_hook)
            await self._call(instance, self._kind.register_hook, item)
        except ProviderUnavailableError as error:
            error.amend(f"{error.message}. Nothing was registered.")
            raise

    async def ask_to_unregister(self, instance: SupervisedProvider, item: RoutedObject, hook: str = "") -> None:
        """Raises what the provider raises. A provider that has nothing to undo raises no error.

        hook: the one that is called; `unregister_...` by default.
        """
        try:
            await self._call(instance, hook or self._kind.unregister_hook, item, HOOK_TIMEOUT_S)
        except (NotFoundError, NotSupportedError) as error:
            _LOGGER.info("%s has nothing to undo for '%s': %s", instance.provider_id, item.identifier, error)
        self._taken[instance.provider_id].pop(item.identifier, None)

    async def undo(self, instance: SupervisedProvider, item: RoutedObject, hook: str = "") -> None:
        """Like `ask_to_unregister`, for an object that was not kept, or is gone: no user waits for the outcome."""
        try:
            await self.ask_to_unregister(instance, item, hook)
        except LlamaStackError as error:
            _LOGGER.warning(
                "provider '%s' did not release %s '%s': %s",
                instance.provider_id,
                self._kind.label,
                item.identifier,
                error.message,
            )

    async def _call(
        self, instance: SupervisedProvider, hook: str, item: RoutedObject, timeout_s: float = math.inf
    ) -> None:
        function = getattr(instance.provider, hook, None)
        if function is None or item.provider_resource_id is not None:
            return
        try:
            with anyio.fail_after(timeout_s):
                await function(**{self._kind.object_name: item})
        except BaseException as raised:
            raise_translated(raised, instance.translate_error(raised))
