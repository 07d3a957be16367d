"""The config of the beeper provider."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Tone(BaseModel):
    """How a voice sounds. The `settings` of a registered voice have the same fields."""

    model_config = ConfigDict(extra="forbid")

    pitch_hz: int = Field(440, ge=50, le=3000, description="Pitch of a beep, in hertz")
    word_ms: int = Field(200, ge=20, le=2000, description="Length of a beep and the pause after it, in milliseconds")


class BeeperConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")

    voices: dict[str, Tone] = Field(
        default_factory=lambda: {"alto": Tone()},
        description="The voices of the config, by identifier",
    )
