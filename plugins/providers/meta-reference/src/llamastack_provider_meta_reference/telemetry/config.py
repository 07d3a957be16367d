"""The config of the telemetry provider."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from llamastack_provider_meta_reference.telemetry.schema import APPLICATION_ID, VERSION

SinkName = Literal["sqlite", "console", "console-json"]


def _without_repetition(sinks: list[SinkName]) -> list[SinkName]:
    if len({*sinks}) != len(sinks):
        raise ValueError("a sink is named twice")
    return sinks


class TelemetryConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    sinks: Annotated[list[SinkName], AfterValidator(_without_repetition)] = Field(
        ["sqlite"],
        min_length=1,
        description="Where spans and events go: `sqlite` keeps them, and is the one that traces can be read from; "
        "`console` writes a line for each span to stdout, as a tree for each trace, and `console-json` a JSON object",
    )
    path: Path | None = Field(
        None,
        description="The SQLite file. Default: a file in the folder of this instance",
        json_schema_extra={
            "x-writes": "file",
            "x-sqlite": {"application_id": APPLICATION_ID, "user_version": VERSION},
        },
    )
    keep_for_s: float = Field(
        604_800, ge=60, description="Seconds that a trace is kept after it arrived; 604800 are seven days"
    )
    max_bytes: int = Field(
        512 * 1024 * 1024,
        ge=1024 * 1024,
        description="Bytes that the SQLite file may have; the oldest traces are removed before it gets larger",
    )
    max_event_bytes: int = Field(
        32_768, ge=1024, description="Bytes that an event of a client may have as JSON; a larger one is refused"
    )
