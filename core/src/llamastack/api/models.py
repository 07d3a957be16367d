"""Models: what inference can be asked of."""

from __future__ import annotations

from typing import Any, Protocol

from pydantic import Field

from llamastack.api.base import RoutedObject
from llamastack.api.webmethod import TableAction, webmethod


class Model(RoutedObject):
    """A model by the name it is asked for."""

    llama_model: str | None = None
    """The Llama model that this is an instance of, where it is one."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    """Anything; the provider says what it reads."""


class Models(Protocol):
    """The models that the configured inference providers serve."""

    @webmethod("/models/list", methods=("GET",), table_action=TableAction.LIST)
    async def list_models(self) -> list[Model]:
        """All models, by provider in config order."""
        ...

    @webmethod("/models/get", methods=("GET",), table_action=TableAction.GET)
    async def get_model(self, identifier: str) -> Model | None:
        """One model by `identifier` or `provider_id/identifier`; None when nothing by that name is served."""
        ...

    @webmethod("/models/register", table_action=TableAction.REGISTER)
    async def register_model(self, model: Model) -> None:
        """Register a model with its provider and remember it."""
        ...

    @webmethod("/models/unregister", table_action=TableAction.UNREGISTER)
    async def unregister_model(self, identifier: str) -> None:
        """Undo a registration."""
        ...
