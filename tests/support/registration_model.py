"""What a property test knows of two workers' registrations and of the backends of their providers."""

from __future__ import annotations

from typing import NamedTuple

from scripted_fake import Script

from llamastack.api import Model

NAMES = ("x", "y", "z")
DECLARED = "declared"
"""A model of the run config."""
PROVIDERS = ("a", "b")


class Backend(Script):
    """What a provider of both workers has behind it. `a` lists what it has taken, `b` lists only what is its own."""

    def __init__(self, name: str) -> None:
        self._own: list[str] = []
        super().__init__(serves=[], accepts=[*NAMES, DECLARED])
        self.name = name

    @property
    def serves(self) -> list[str]:
        taken = [name for name in self.registered if name in (self.accepts or ())] if self.name == "a" else []
        return sorted({*self._own, *taken})

    @serves.setter
    def serves(self, own: list[str]) -> None:
        self._own = own

    def lose(self, lost: str) -> None:
        for names_of in (self._own, self.registered, self.accepts or []):
            names_of[:] = [name for name in names_of if name != lost]

    @property
    def is_down(self) -> bool:
        return self.fail_list is not None

    def go(self, *, down: bool) -> None:
        error = ConnectionError("away") if down else None
        self.fail_list = self.fail_register = self.fail_unregister = self.fail_call = error


class Registered(NamedTuple):
    """What the model knows of a registration."""

    provider_id: str
    target: str | None
    number: int

    def of(self, name: str) -> Model:
        return Model(
            identifier=name,
            provider_id=self.provider_id,
            provider_resource_id=self.target,
            metadata={"number": self.number},
        )
