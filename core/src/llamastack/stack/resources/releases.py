"""Objects that a worker is unregistering: until their provider has released them, no worker registers them again.

Else a provider could delete what another worker has just registered, with the documents that are in it by then.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from llamastack.provider.errors import ConflictError, StoreUnavailableError
from llamastack.provider.store import Store
from llamastack.stack.resources.reconciliation import HOOK_TIMEOUT_S

_LOGGER = logging.getLogger("llamastack.stack")
_LOOK_EVERY_S = 0.05
_LONGEST_WAIT_S = 10.0


class Releases:
    """Those of one kind of object, in the store. label: of the kind, for people."""

    def __init__(self, store: Store, resource_api: str, label: str) -> None:
        self._store, self._kind, self._label = store, f"releasing/{resource_api}", label

    @asynccontextmanager
    async def releasing(self, identifier: str) -> AsyncIterator[None]:
        """While the block runs, other workers wait. It is carried out even if the caller is cancelled.

        A worker that dies in the block holds up the others for no longer than a release may take.
        """
        with anyio.CancelScope(shield=True):
            expires_at = time.time() + HOOK_TIMEOUT_S + _LONGEST_WAIT_S
            await self._store.put(self._kind, identifier, "", expires_at=expires_at)
            try:
                yield
            finally:
                try:
                    await self._store.delete(self._kind, identifier)
                except StoreUnavailableError as error:
                    message = "%s '%s' cannot be registered for a while: %s"
                    _LOGGER.warning(message, self._label, identifier, error.message)

    async def wait(self, identifier: str) -> bool:
        """Wait until no worker releases the object. Returns whether one did.

        Raises ConflictError if that takes too long.
        """
        waited = False
        with anyio.move_on_after(_LONGEST_WAIT_S):
            while await self._store.get(self._kind, identifier) is not None:
                waited = True
                await anyio.sleep(_LOOK_EVERY_S)
            return waited
        raise ConflictError(f"{self._label} '{identifier}' is being unregistered; try again when it has ended")
