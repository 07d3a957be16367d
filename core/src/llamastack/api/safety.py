"""Safety: run a shield over messages."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Protocol

from pydantic import Field

from llamastack.api.base import WireModel
from llamastack.api.common import Message
from llamastack.api.webmethod import not_served, webmethod


class ViolationLevel(StrEnum):
    info = "info"
    warn = "warn"
    error = "error"


class SafetyViolation(WireModel):
    violation_level: ViolationLevel
    user_message: str | None = None
    """What may be said to the user."""
    metadata: dict[str, Any] = Field(default_factory=dict)


class RunShieldResponse(WireModel):
    violation: SafetyViolation | None = None
    """Not set when the messages passed."""


class Safety(Protocol):
    """Check messages against shields."""

    @webmethod("/safety/run_shield", routed_by="shield_type", capability="run_shield")
    async def run_shield(
        self,
        shield_type: str,
        messages: list[Message],
        params: dict[str, Any] | None = None,
    ) -> RunShieldResponse:
        """Run the shield named `shield_type` (its identifier) over `messages`."""
        raise not_served()
