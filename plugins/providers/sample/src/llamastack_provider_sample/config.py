"""The settings of the sample providers."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from llamastack_memory_kit import DocumentSettings


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SampleInferenceConfig(_Config):
    models: list[str] = Field(default=["sample-echo"], description="Identifiers of the models to serve")
    prefix: str = Field(default="", description="Text put before every reply")


class SampleSafetyConfig(_Config):
    shields: dict[str, list[str]] = Field(
        default={"sample-words": ["forbidden"]}, description="Words that each shield refuses, by shield identifier"
    )


class SampleMemoryConfig(DocumentSettings):
    """It has only the settings of documents."""


class SampleAgentsConfig(_Config):
    session_idle_s: float | None = Field(
        default=30 * 86_400.0, gt=0, description="Seconds after its last turn when a session is forgotten; null: never"
    )


class SampleTelemetryConfig(_Config):
    max_traces: int = Field(default=1000, gt=0, description="How many traces are kept; the oldest go first")
