"""The telemetry API: sinks that spans and events are written to."""
