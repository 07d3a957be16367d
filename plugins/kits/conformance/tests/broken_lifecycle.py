"""Inference providers that are each broken in one way in their life, listings or registrations."""

from __future__ import annotations

from typing import Any, ClassVar

from broken_inference import IMPATIENT, Base, broken

from llamastack.api import (
    Model,
)
from llamastack.provider import (
    InvalidRequestError,
    NotSupportedError,
    UnsupportedModelError,
)


@broken("life.starts", settings=IMPATIENT)
class DoesNotStart(Base):
    async def initialize(self) -> None:
        raise RuntimeError("no")


@broken("life.two-instances")
class ClosesForAll(Base):
    _all: ClassVar[list[Base]] = []

    async def initialize(self) -> None:
        self._all.append(self)

    async def shutdown(self) -> None:
        for one in self._all:
            await Base.shutdown(one)


@broken("life.no-shared-state")
class CountsInTheClass(Base):
    seen: ClassVar[list[str]] = []

    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        self.seen.append(kwargs["model"])
        return await super().chat_completion(*args, **kwargs)


_SHARED: dict[str, Any] = {}


@broken("life.no-shared-state")
class HoldsTheSameDict(Base):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cache = _SHARED


@broken("listing.objects")
class ListsTwice(Base):
    async def list_models(self) -> list[Model]:
        return [*await super().list_models(), *await super().list_models()]


@broken("listing.objects")
class ListsForAnother(Base):
    async def list_models(self) -> list[Model]:
        return [m.model_copy(update={"provider_id": "another"}) for m in await super().list_models()]


@broken("listing.steady")
class ListsInAnyOrder(Base):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turn = 0

    async def list_models(self) -> list[Model]:
        self._turn += 1
        return [*await super().list_models(), Model(identifier=f"extra-{self._turn}")]


@broken("registration.listed")
class RegistersOnce(Base):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._taken: set[str] = set()

    async def register_model(self, model: Model) -> None:
        if model.identifier in self._taken:
            raise InvalidRequestError("it is there already")
        self._taken.add(model.identifier)


@broken("registration.unserved")
class TakesAnything(Base):
    async def register_model(self, model: Model) -> None:
        return


@broken("registration.unserved")
class RefusesInOtherWords(Base):
    async def register_model(self, model: Model) -> None:
        raise NotSupportedError("no")


@broken("registration.not-half")
class RegistersByHalves(Base):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._half: list[Model] = []

    async def list_models(self) -> list[Model]:
        return [*await super().list_models(), *self._half]

    async def register_model(self, model: Model) -> None:
        self._half.append(model)
        raise UnsupportedModelError(model.identifier)


@broken("registration.refused")
class TakesWhatItDoesNotDeclare(TakesAnything): ...


@broken("unregister.refused")
class UnregistersWithoutSayingSo(Base):
    gone: str = ""

    async def list_models(self) -> list[Model]:
        return [m for m in await super().list_models() if m.identifier != self.gone]

    async def unregister_model(self, model: Model) -> None:
        self.gone = model.identifier
