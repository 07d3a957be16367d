"""Safety by a list of words."""

from __future__ import annotations

from typing import Any

from llamastack.api.common import Message, texts_of
from llamastack.api.safety import RunShieldResponse, Safety, SafetyViolation, ViolationLevel
from llamastack.api.shields import Shield
from llamastack.provider import Deps, ObjectNotFoundError, ShieldsProtocolPrivate, UnsupportedShieldError
from llamastack_provider_sample.config import SampleSafetyConfig


class SampleSafety(Safety, ShieldsProtocolPrivate):
    """Serves the shields of its config, and any that is registered with `params: {words: [...]}`."""

    def __init__(self, config: SampleSafetyConfig) -> None:
        self._configured = config.shields
        self._registered: dict[str, list[str]] = {}

    @property
    def _words(self) -> dict[str, list[str]]:
        return self._configured | self._registered

    async def list_shields(self) -> list[Shield]:
        return [Shield(identifier=name, type="words", params={"words": words}) for name, words in self._words.items()]

    async def register_shield(self, shield: Shield) -> None:
        words = shield.params.get("words")
        if not isinstance(words, list) or not all(isinstance(word, str) and word for word in words):
            raise UnsupportedShieldError(shield.identifier, reason="params.words must be a list of words")
        self._registered[shield.identifier] = words

    async def unregister_shield(self, shield: Shield) -> None:
        self._registered.pop(shield.identifier, None)

    async def forget_shield(self, shield: Shield) -> None:
        await self.unregister_shield(shield)

    async def run_shield(
        self, shield_type: str, messages: list[Message], params: dict[str, Any] | None = None
    ) -> RunShieldResponse:
        text = "\n".join(text for message in messages for text in texts_of(message)).lower()
        words = self._words.get(shield_type)
        if words is None:
            raise ObjectNotFoundError("shield", shield_type, available=self._words, param="shield_type")
        found = [word for word in words if word.lower() in text]
        if not found:
            return RunShieldResponse()
        return RunShieldResponse(
            violation=SafetyViolation(
                violation_level=ViolationLevel.error,
                user_message="This topic is not allowed here.",
                metadata={"words": found},
            )
        )


async def get_adapter_impl(config: SampleSafetyConfig, deps: Deps) -> SampleSafety:
    return SampleSafety(config)
