"""The hooks of a provider's life, and those by which it says what it serves. The stack calls them; users never do.

Every provider may have these, `async def` and without arguments:

- `initialize`: after the factory, before any other call. Raising: the instance is down, and is started again later.
- `health`: before each asking what is served. Raising: the provider is down, with that as the reason.
- `shutdown`: when the stack stops, and before another start; it has 10 seconds. Raising: a warning in the log.

Each Protocol has two optional hooks, async and with the object as the only argument, as in `register_*`:

- `unregister_*`: a user unregistered the object. Undo what `register_*` did, also where it is shared (a collection in a
  database). Called in one worker only. A provider that lacks it has nothing to undo.
- `forget_*`: another worker unregistered the object. Let go of what this process alone holds; remove nothing that is
  shared: the object may have been registered again meanwhile.
"""

from __future__ import annotations

from typing import Protocol

from llamastack.api.memory_banks import MemoryBank
from llamastack.api.models import Model
from llamastack.api.shields import Shield


class ModelsProtocolPrivate(Protocol):
    """Implemented by every inference provider."""

    async def list_models(self) -> list[Model]:
        """The resources that are served now; asked again and again, so keep it cheap. `provider_id` may be left empty.

        Raises if the backend that has them cannot be asked: a list of earlier would hide that it is down.
        """

    async def register_model(self, model: Model) -> None:
        """Prepare to serve `model`, or refuse.

        Called again with the same model at every start; must be idempotent.
        Raises UnsupportedModelError when it cannot be served.
        """


class ShieldsProtocolPrivate(Protocol):
    """Implemented by every safety provider."""

    async def list_shields(self) -> list[Shield]:
        """The resources that are served now. `provider_id` may be left empty."""

    async def register_shield(self, shield: Shield) -> None:
        """Prepare to serve `shield`, or refuse; idempotent.

        Raises UnsupportedShieldError when it cannot be served.
        """


class MemoryBanksProtocolPrivate(Protocol):
    """Implemented by every memory provider."""

    async def list_memory_banks(self) -> list[MemoryBank]:
        """The resources that are served now. `provider_id` may be left empty."""

    async def register_memory_bank(self, memory_bank: MemoryBank) -> None:
        """Prepare to serve `memory_bank`, or refuse; idempotent.

        Raises UnsupportedMemoryBankError when it cannot be served.
        """
