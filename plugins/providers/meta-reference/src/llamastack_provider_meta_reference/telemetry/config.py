"""The config of the telemetry provider."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class TelemetryConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    path: Path | None = Field(None, description="The SQLite file. Default: a file in the folder of this instance")
