"""The conformance suite of the telemetry API, with a real file."""

from __future__ import annotations

from typing import Any, ClassVar

from llamastack_conformance import TelemetryConformance


class TestMetaReferenceTelemetryConformance(TelemetryConformance):
    provider_type = "meta-reference"
    config: ClassVar[dict[str, Any]] = {
        "providers": {"telemetry": [{"provider_id": "traces", "provider_type": "meta-reference"}]}
    }
