"""The conformance suite for the provider, before a collector on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from backends.otlp_receivers import fake_collector

from llamastack_conformance import TelemetryConformance


class TestOpenTelemetryConformance(TelemetryConformance):
    provider_type = "remote::opentelemetry"

    @pytest.fixture(scope="class")
    @classmethod
    def llamastack_config(cls) -> Iterator[dict[str, Any]]:
        with fake_collector() as (url, _):
            provider = {"provider_id": "otel", "provider_type": cls.provider_type, "config": {"endpoint": url}}
            yield {"providers": {"telemetry": [provider]}}
