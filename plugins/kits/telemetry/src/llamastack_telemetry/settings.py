"""The key `tracing` of a run config."""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

CONTENT_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""The variable of OpenTelemetry's instrumentations."""
_LONGEST_PATTERN = 1000


def _checked_pattern(pattern: str) -> str:
    import regex  # most run configs have no pattern

    if not pattern or len(pattern) > _LONGEST_PATTERN:
        raise ValueError(f"must be a regular expression of 1 to {_LONGEST_PATTERN} characters")
    try:
        regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    return pattern


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
        description="Paths of the server whose requests get no span; `metrics.path`, and those of the telemetry and "
        "inspect APIs, get none either",
    )
    content: bool = Field(
        False,
        description="Whether spans have the content of messages: what users ask and what models reply. Without this "
        "key, the variable OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true has the same effect",
    )
    max_content_bytes: int = Field(
        65_536,
        ge=256,
        le=1_048_576,
        description="Most bytes of content in each attribute; the rest is cut, with a mark",
    )
    max_waiting_content_bytes: int = Field(
        67_108_864,
        ge=1_048_576,
        description="Most bytes of content that wait, in each process and for each provider; further spans have none",
    )
    redact: list[Annotated[str, AfterValidator(_checked_pattern)]] = Field(
        default_factory=list,
        max_length=100,
        description="Regular expressions; what they find in content becomes `***`. Known secrets always do",
    )

    @property
    def has_content(self) -> bool:
        """Whether spans have content."""
        if "content" in self.model_fields_set:
            return self.content
        return os.environ.get(CONTENT_VARIABLE, "").strip().lower() == "true"
