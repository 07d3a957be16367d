"""The key `tracing` of a run config."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TracingConfig(BaseModel):
    """How the stack traces itself. Spans are made if the stack has a provider of the telemetry API."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    enabled: bool = Field(True, description="Whether requests and calls are traced")
    sampling_ratio: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of traces that are recorded, decided at their root. The decision of a client that sends "
        "`traceparent` goes before it",
    )
    max_waiting_spans: int = Field(
        20_000,
        ge=1,
        description="Most spans that wait for a provider, in each process and for each provider; further ones are "
        "dropped, and counted",
    )
    max_batch_spans: int = Field(512, ge=1, description="Most spans that a provider gets at once")
    interval_s: float = Field(
        1.0,
        gt=0,
        le=60,
        description="Seconds after which providers get the spans that wait, if no batch is full before",
    )
    export_timeout_s: float = Field(
        10.0, gt=0, description="Seconds that a provider has for a batch; then it is tried again"
    )
    ignored_paths: list[str] = Field(
        default_factory=lambda: ["/metrics", "/docs", "/openapi.json"],
        description="Paths of the server whose requests get no span; those of the telemetry and inspect APIs get none",
    )
