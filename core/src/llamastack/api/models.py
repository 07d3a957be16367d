"""Models, which inference runs."""

from __future__ import annotations

from typing import Protocol, Self

from pydantic import Field, model_validator

from llamastack.api.base import JsonObject, RoutedObject
from llamastack.api.webmethod import ResourceAction, webmethod


class Model(RoutedObject):
    """A model by the name that requests use."""

    llama_model: str | None = None
    """The Llama model behind this model, or the identifier, because clients of release 0.0.41 need a string here."""
    metadata: JsonObject = Field(default_factory=dict)
    """Free data; the provider defines which keys it reads."""

    @property
    def can_chat(self) -> bool:
        """Whether it is available and does more than embed."""
        return self.unavailable_reason is None and not self.only_embeds

    @property
    def only_embeds(self) -> bool:
        """Whether it makes embeddings and nothing else: a model that generates has a context length."""
        return "embedding_dimension" in self.metadata and "context_length" not in self.metadata

    @model_validator(mode="after")
    def _has_a_llama_model(self) -> Self:
        if self.llama_model is None:
            # Not assigned: whether the field was given is to stay known.
            self.__dict__["llama_model"] = self.identifier
        return self


class Models(Protocol):
    """The models that the configured inference providers serve."""

    @webmethod("/models/list", methods=("GET",), resource_action=ResourceAction.LIST)
    async def list_models(self) -> list[Model]:
        """All models, by provider in config order."""
        ...

    @webmethod("/models/get", methods=("GET",), resource_action=ResourceAction.GET)
    async def get_model(self, identifier: str) -> Model | None:
        """One model by `identifier` or `provider_id/identifier`; None when nothing by that name is served."""
        ...

    @webmethod("/models/register", resource_action=ResourceAction.REGISTER)
    async def register_model(self, model: Model) -> None:
        """Register a model with its provider and remember it."""
        ...

    @webmethod("/models/unregister", resource_action=ResourceAction.UNREGISTER)
    async def unregister_model(self, identifier: str) -> None:
        """Undo a registration."""
        ...
