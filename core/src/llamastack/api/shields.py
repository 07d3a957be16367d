"""Shields: the safety checks that can be run by name."""

from __future__ import annotations

from typing import Protocol

from pydantic import Field

from llamastack.api.base import JsonObject, RoutedObject
from llamastack.api.webmethod import ResourceAction, webmethod


class Shield(RoutedObject):
    """A safety check by the name it is run by."""

    type: str
    """The kind of check, such as `llama_guard`; the provider defines the kinds."""
    params: JsonObject = Field(default_factory=dict)
    """Settings of the check; the provider defines them."""


class Shields(Protocol):
    """The shields that the configured safety providers serve."""

    @webmethod("/shields/list", methods=("GET",), resource_action=ResourceAction.LIST)
    async def list_shields(self) -> list[Shield]:
        """All shields, by provider in config order."""
        ...

    @webmethod("/shields/get", methods=("GET",), resource_action=ResourceAction.GET)
    async def get_shield(self, shield_type: str) -> Shield | None:
        """One shield by its identifier; None when nothing by that name is served."""
        ...

    @webmethod("/shields/register", resource_action=ResourceAction.REGISTER)
    async def register_shield(self, shield: Shield) -> None:
        """Register a shield with its provider and remember it."""
        ...

    @webmethod("/shields/unregister", resource_action=ResourceAction.UNREGISTER)
    async def unregister_shield(self, identifier: str) -> None:
        """Undo a registration."""
        ...
