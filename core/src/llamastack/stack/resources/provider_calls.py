"""Calls of the private protocols, which register and unregister an object with its provider."""

from __future__ import annotations

import logging
import math

import anyio

from llamastack.api.base import RoutedObject
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
    """The hooks for one kind of object."""

    def __init__(self, kind: ResourceKind) -> None:
        self._kind = kind

    async def register(self, instance: SupervisedProvider, item: RoutedObject) -> None:
        """Raises what the provider raises, as an error of the family."""
        try:
            if instance.provider is None:
                raise instance.unavailable()
            await self._call(instance, self._kind.register_hook, item)
        except ProviderUnavailableError as error:
            error.amend(f"{error.message}. Nothing was registered.")
            raise

    async def unregister(self, instance: SupervisedProvider, item: RoutedObject) -> None:
        """Raises what the provider raises. A provider that has nothing to undo raises no error."""
        try:
            await self._call(instance, self._kind.unregister_hook, item, HOOK_TIMEOUT_S)
        except (NotFoundError, NotSupportedError) as error:
            _LOGGER.info("%s has nothing to undo for '%s': %s", instance.provider_id, item.identifier, error)

    async def undo(self, instance: SupervisedProvider, item: RoutedObject) -> None:
        """Undo at the provider what could not be kept."""
        try:
            await self.unregister(instance, item)
        except LlamaStackError as error:
            _LOGGER.warning(
                "%s '%s' could not be undone at provider '%s': %s",
                self._kind.label,
                item.identifier,
                instance.provider_id,
                error.message,
            )

    async def forget(self, instance: SupervisedProvider, item: RoutedObject) -> None:
        """Have this worker's provider let go of `item`, which another worker unregistered."""
        try:
            await self._call(instance, self._kind.forget_hook, item, HOOK_TIMEOUT_S)
        except LlamaStackError as error:
            _LOGGER.warning(
                "provider '%s' did not let go of '%s': %s", instance.provider_id, item.identifier, error.message
            )

    async def _call(
        self, instance: SupervisedProvider, hook: str, item: RoutedObject, timeout_s: float = math.inf
    ) -> None:
        function = getattr(instance.provider, hook, None)
        if function is None:
            return
        try:
            with anyio.fail_after(timeout_s):
                await function(**{self._kind.object_name: item})
        except BaseException as raised:
            raise_translated(raised, instance.translate_error(raised))
