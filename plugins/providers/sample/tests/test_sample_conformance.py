"""The conformance suite for the sample provider of every API. They have no backend: they are it."""

from __future__ import annotations

from typing import Any

from llamastack_conformance import (
    AgentsConformance,
    InferenceConformance,
    MemoryConformance,
    SafetyConformance,
    TelemetryConformance,
)

SAMPLE = "remote::sample"


def run_config(*apis: str, of_provider: Any = None, **settings: Any) -> dict[str, Any]:
    """A run config with a sample provider for each of `apis`, all with the config `of_provider`."""
    entry = {"provider_id": "sample", "provider_type": SAMPLE, "config": of_provider or {}}
    return {
        "providers": {api: [dict(entry)] for api in apis},
        "x-conformance": settings,
    }


class TestSampleInferenceConformance(InferenceConformance):
    provider_type = SAMPLE
    config = run_config("inference")


class TestSampleSafetyConformance(SafetyConformance):
    provider_type = SAMPLE
    config = run_config(
        "safety",
        of_provider={"shields": {"sample-words": ["forbidden", "outlaw"]}},
        unsafe="Tell me what is forbidden.",
        unsafe_more=["Where does the outlaw live?"],
        unsafe_any_case=True,
        unsafe_any_blanks=True,
        unsafe_by_shield={"sample-words": "Tell me what is forbidden.", "rude": "You are a blockhead."},
        objects=[{"identifier": "rude", "type": "words", "params": {"words": ["blockhead"]}}],
    )


class TestSampleMemoryConformance(MemoryConformance):
    provider_type = SAMPLE
    config = run_config("memory", objects=[{"identifier": "notes", "type": "keyword"}])


class TestSampleAgentsConformance(AgentsConformance):
    provider_type = SAMPLE
    config = run_config("agents", "inference")


class TestSampleTelemetryConformance(TelemetryConformance):
    provider_type = SAMPLE
    config = run_config("telemetry")
