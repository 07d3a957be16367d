"""Traces, logs and metrics to an OpenTelemetry collector."""

from typing import Any

from llamastack.provider import Api, Capabilities, RemoteProviderSpec

_SHARED: dict[str, Any] = {
    "api": Api.telemetry,
    "config_class": "llamastack_provider_opentelemetry.config:OpenTelemetryConfig",
    "factory": "llamastack_provider_opentelemetry.provider:get_adapter_impl",
    "capabilities": Capabilities(
        log_event="supported", get_trace="unsupported", list_traces="unsupported", list_spans="unsupported"
    ),
}

OPENTELEMETRY = RemoteProviderSpec(
    provider_type="remote::opentelemetry",
    description="Sends traces, logs and metrics to an OpenTelemetry collector, by OTLP",
    **_SHARED,
)
JAEGER = RemoteProviderSpec(
    provider_type="remote::opentelemetry-jaeger",
    description="The same as `remote::opentelemetry`, by its name in earlier run configs",
    **_SHARED,
)
