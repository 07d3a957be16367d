"""Providers that need no service."""

from llamastack.provider import Api, Capabilities, InlineProviderSpec

TELEMETRY = InlineProviderSpec(
    api=Api.telemetry,
    provider_type="meta-reference",
    description="Keeps traces and events in a SQLite file, and writes them to the console",
    config_class="llamastack_provider_meta_reference.telemetry.config:TelemetryConfig",
    factory="llamastack_provider_meta_reference.telemetry.provider:get_provider_impl",
    capabilities=Capabilities(
        log_event="supported", get_trace="supported", list_traces="supported", list_spans="supported"
    ),
)
