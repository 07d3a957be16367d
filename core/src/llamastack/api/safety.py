"""Safety: run a shield over messages."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from pydantic import Field

from llamastack.api.base import JsonObject, WireModel
from llamastack.api.common import Message
from llamastack.api.webmethod import not_served, webmethod


class ViolationLevel(StrEnum):
    """How bad a violation is; a caller goes no further at `error`."""

    info = "info"
    warn = "warn"
    error = "error"


class SafetyViolation(WireModel):
    """What a shield found. It holds no text of messages in which nothing was found: callers log and show it."""

    violation_level: ViolationLevel
    """How bad it is."""
    user_message: str | None = None
    """What may be said to the user."""
    metadata: JsonObject = Field(default_factory=dict)
    """More of what was found, for programs; the provider says what."""


class RunShieldResponse(WireModel):
    """A shield's verdict."""

    violation: SafetyViolation | None = None
    """Not set when the messages passed."""


class Safety(Protocol):
    """Check messages against shields."""

    @webmethod("/safety/run_shield", routed_by="shield_type", capability="run_shield")
    async def run_shield(
        self,
        shield_type: str,
        messages: list[Message],
        params: JsonObject | None = None,
    ) -> RunShieldResponse:
        """Run a shield over messages; one that finds nothing gives an empty response.

        shield_type: the identifier of the shield.
        messages: the conversation, the newest message last; there may be none. The shield reads the texts of all roles
        (user, system, assistant, tool): `content`, and `context` of a user's message, whole.
        params: settings of this run; the provider says which.
        """
        raise not_served()
