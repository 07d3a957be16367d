"""Brings a provider in line with what is registered: after a restart, when it comes back, when other workers register.

The registrations say what should be there; a provider acknowledges each by taking it. The rest is tried again after
every poll.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import anyio

from llamastack.api.definition import ResourceKind
from llamastack.provider.deps import replaying
from llamastack.provider.errors import LlamaStackError
from llamastack.stack.resources.provider_calls import HOOK_TIMEOUT_S, ProviderCalls
from llamastack.stack.resources.registrations import Registration, Registrations
from llamastack.stack.supervisor import SupervisedProvider

_LOGGER = logging.getLogger("llamastack.stack")
_REPLAYS_AT_ONCE = 16


class Reconciler:
    """Works on the registrations of one kind of object."""

    def __init__(self, kind: ResourceKind, registrations: Registrations, calls: ProviderCalls) -> None:
        self._kind = kind
        self._registrations = registrations
        self._calls = calls
        self._known: dict[str, object] = {}

    async def reconcile(self, instance: SupervisedProvider) -> None:
        """Call it after each poll, in the instance's own task."""
        gone = self._registrations.gone(instance.provider_id)
        self._registrations.forget_gone(instance.provider_id)
        mine = self._registrations.of(instance.provider_id)
        names = {each.object.identifier for each in mine}
        for item in gone:
            if item.identifier not in names:
                await self._calls.forget(instance, item)
        restarted = self._known.get(instance.provider_id) is not instance.provider
        self._known[instance.provider_id] = instance.provider
        for each in mine:
            if restarted:
                each.wait()
            each.polled(listed=each.object.identifier in instance.served)
        await self._replay(instance, [each for each in mine if each.reason is not None])
        if gone:
            instance.wake()  # what it lists may have changed

    async def _replay(self, instance: SupervisedProvider, waiting: Sequence[Registration]) -> None:
        left = iter(waiting)

        async def work() -> None:
            at: Registration | None = None
            while True:
                # One scope for many registrations: with one each, timers would cost more than the work.
                with anyio.move_on_after(HOOK_TIMEOUT_S) as limit:
                    renew_at = anyio.current_time() + HOOK_TIMEOUT_S / 2
                    for at in left:
                        await self._replay_one(instance, at)
                        if anyio.current_time() > renew_at:
                            break
                    else:
                        return
                if limit.cancelled_caught and at is not None:
                    self._refused(instance, at, instance.translate_error(TimeoutError()))

        with replaying():
            async with anyio.create_task_group() as group:
                for _ in range(min(_REPLAYS_AT_ONCE, len(waiting))):
                    group.start_soon(work)

    async def _replay_one(self, instance: SupervisedProvider, entry: Registration) -> None:
        identifier = entry.object.identifier
        if self._registrations.get(identifier) is not entry:
            return
        try:
            await getattr(instance.provider, self._kind.register_hook)(**{self._kind.object_name: entry.object})
        except BaseException as raised:
            self._refused(instance, entry, instance.translate_error(raised))
            return
        if entry.take():
            _LOGGER.info("%s takes %s '%s' now", instance.provider_id, self._kind.label, identifier)
        if self._registrations.get(identifier) is not entry:
            # Unregistered or replaced during the call. This is checked afterwards, because it hardly ever happens: a
            # lock for every object would take most of the time of a start with many objects.
            async with self._registrations.lock(identifier):
                current = self._registrations.get(identifier)
                if current is None:
                    await self._calls.undo(instance, entry.object)
                else:
                    current.wait()

    def _refused(self, instance: SupervisedProvider, entry: Registration, error: LlamaStackError) -> None:
        if entry.refuse(error.message):
            _LOGGER.warning(
                "%s does not take %s '%s', which %s: %s",
                instance.provider_id,
                self._kind.label,
                entry.object.identifier,
                "the run config registers" if entry.declared else "was registered",
                error.message,
            )
