"""The hooks of a provider's life, and those by which it says what it serves. The stack calls them; users never do.

Every provider may have these, `async def` and without arguments:

- `initialize`: after the factory, before any other call. Raising: the instance is down, and is started again later.
- `health`: before each asking what is served. Raising: the provider is down, with that as the reason.
- `shutdown`: when the stack stops, and before another start; it has 10 seconds. Raising: a warning in the log.

Each Protocol has two optional hooks, async and with the object as the only argument, as in `register_*`:

- `unregister_*`: a user unregistered the object. Undo what `register_*` did, also where it is shared (a collection in a
  database). Called in one worker only. A provider that lacks it has nothing to undo.
- `forget_*`: another worker unregistered the object. Let go of what this process alone holds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from llamastack.api.memory_banks import MemoryBank
from llamastack.api.models import Model
from llamastack.api.shields import Shield
from llamastack.provider.json_members import renamed, with_string


class ModelsProtocolPrivate(Protocol):
    """Implemented by every inference provider."""

    async def list_models(self) -> list[Model]:
        """What is served now; asked again and again, so keep it cheap. `provider_id` may be left empty."""
        ...

    async def register_model(self, model: Model) -> None:
        """Prepare to serve `model`, or refuse.

        Called again with the same model at every start; must be idempotent.
        Raises UnsupportedModelError when it cannot be served.
        """
        ...


@dataclass(frozen=True, slots=True)
class OpenAIRequest:
    """A request to the OpenAI-compatible surface, found valid, as the client wrote it.

    Format: https://platform.openai.com/docs/api-reference.
    """

    route: str
    """Below `/v1/`: `chat/completions`, `completions` or `embeddings`."""
    model: str
    """The identifier of the model, as the stack knows it."""
    body: bytes
    """JSON, whose `model` may be another name of the same model, such as `provider_id/identifier`."""
    given: Collection[str]
    """Names of the fields in it that have a value."""
    stream: bool
    """Whether the client wants events."""
    named: str
    """The `model` of the body."""

    def body_for(self, name: str, others: Mapping[str, str] | None = None) -> bytes:
        """The body for a backend that calls the model `name`: the client's own bytes where it does so too.

        others: names of other fields that it has, and what the backend calls them.
        """
        body = self.body if name == self.named else with_string(self.body, "model", name)
        for field, other in (others or {}).items():
            body = renamed(body, field, other)
        return body


class OpenAIProtocolPrivate(Protocol):
    """May be implemented by an inference provider whose backend speaks OpenAI's API: a lane without translation."""

    async def takes_openai(self, request: OpenAIRequest) -> bool:
        """Whether `forward_openai` can answer it; without this it can answer all.

        False where this backend differs from OpenAI's API in one of the fields that are given: the stack then calls the
        provider's native methods.
        """
        ...

    async def forward_openai(self, request: OpenAIRequest) -> bytes | AsyncIterator[bytes]:
        """The backend's answer as it came: JSON, or for a stream blocks of one or several whole events.

        An iterator must not end before `data: [DONE]`, and raises where the backend breaks
        off. Raises what the native methods raise.
        """
        ...


class ShieldsProtocolPrivate(Protocol):
    """Implemented by every safety provider."""

    async def list_shields(self) -> list[Shield]:
        """What is served now. `provider_id` may be left empty."""
        ...

    async def register_shield(self, shield: Shield) -> None:
        """Prepare to serve `shield`, or refuse; idempotent.

        Raises UnsupportedShieldError when it cannot be served.
        """
        ...


class MemoryBanksProtocolPrivate(Protocol):
    """Implemented by every memory provider."""

    async def list_memory_banks(self) -> list[MemoryBank]:
        """What is served now. `provider_id` may be left empty."""
        ...

    async def register_memory_bank(self, memory_bank: MemoryBank) -> None:
        """Prepare to serve `memory_bank`, or refuse; idempotent.

        Raises UnsupportedMemoryBankError when it cannot be served.
        """
        ...
