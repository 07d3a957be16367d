"""Calls of the private protocols: what the stack tells a provider about a model, a shield, a memory bank."""

from __future__ import annotations

import logging
from typing import Any

import anyio

from llamastack.api.definition import ResourceKind
from llamastack.provider.errors import (
    LlamaStackError,
    NotFoundError,
    NotSupportedError,
    ProviderUnavailableError,
    raise_translated,
)
from llamastack.stack.supervisor import SupervisedProvider

_LOGGER = logging.getLogger("llamastack.stack")
HOOK_TIMEOUT_S = 60.0
"""How long a hook may take that no user waits for."""


class ProviderCalls:
    """The hooks for the objects of one pair."""

    def __init__(self, pair: ResourceKind) -> None:
        self._pair = pair

    async def register(self, instance: SupervisedProvider, item: Any) -> None:
        """Raises what the provider raises, in the words of the error family."""
        if instance.provider is None:
            raise _nothing_registered(instance.unavailable())
        try:
            await getattr(instance.provider, self._pair.register_hook)(**{self._pair.object_name: item})
        except BaseException as raised:
            raise_translated(raised, _nothing_registered(instance.told(raised)))

    async def unregister(self, instance: SupervisedProvider, item: Any) -> None:
        """Raises what the provider raises; that it has nothing to undo is no error."""
        hook = getattr(instance.provider, self._pair.unregister_hook, None)
        if hook is None:
            return
        try:
            with anyio.fail_after(HOOK_TIMEOUT_S):
                await hook(**{self._pair.object_name: item})
        except (NotFoundError, NotSupportedError) as error:
            _LOGGER.info("%s has nothing to undo for '%s': %s", instance.provider_id, item.identifier, error)
        except BaseException as raised:
            raise_translated(raised, instance.told(raised))

    async def undo(self, instance: SupervisedProvider, item: Any) -> None:
        """Undo at the provider what could not be kept."""
        try:
            await self.unregister(instance, item)
        except LlamaStackError as error:
            _LOGGER.warning(
                "%s '%s' could not be undone at provider '%s': %s",
                self._pair.label,
                item.identifier,
                instance.provider_id,
                error.message,
            )

    async def forget(self, instance: SupervisedProvider, item: Any) -> None:
        """Tell this worker's provider that another worker unregistered `item`, which is done where it is shared."""
        hook = getattr(instance.provider, self._pair.forget_hook, None)
        if hook is None:
            return
        try:
            with anyio.fail_after(HOOK_TIMEOUT_S):
                await hook(**{self._pair.object_name: item})
        except BaseException as raised:
            told = instance.told(raised).message
            _LOGGER.warning("provider '%s' did not let go of '%s': %s", instance.provider_id, item.identifier, told)


def _nothing_registered(told: LlamaStackError) -> LlamaStackError:
    if isinstance(told, ProviderUnavailableError):
        told.reword(f"{told.message}. Nothing was registered.")
    return told
