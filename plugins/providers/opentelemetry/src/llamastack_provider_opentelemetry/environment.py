"""The environment variables of OpenTelemetry that are defaults of the config.

Source: https://opentelemetry.io/docs/specs/otel/protocol/exporter/ and
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"
SERVICE_NAME = "OTEL_SERVICE_NAME"
RESOURCE_ATTRIBUTES = "OTEL_RESOURCE_ATTRIBUTES"


def with_environment(given: Mapping[str, object], environment: Mapping[str, str]) -> dict[str, object]:
    """The fields of a config, and for those that are not given the values of the environment; an empty one is none.

    Attributes of the resource are joined; those that are given go first.
    Raises ValueError for a variable that cannot be read. The message has no value of it.
    """
    found = dict(given)
    if environment.get(ENDPOINT):
        found.setdefault("endpoint", environment[ENDPOINT])
    if "headers" not in found and environment.get(HEADERS):
        found["headers"] = _pairs(HEADERS, environment[HEADERS])
    attributes = _pairs(RESOURCE_ATTRIBUTES, environment.get(RESOURCE_ATTRIBUTES, ""))
    name = environment.get(SERVICE_NAME) or attributes.pop("service.name", None)
    attributes.pop("service.name", None)
    if name:
        found.setdefault("service_name", name)
    own = found.get("resource_attributes", {})
    if attributes and isinstance(own, Mapping):
        found["resource_attributes"] = {**attributes, **own}
    return found


def _pairs(variable: str, text: str) -> dict[str, str]:
    """`key=value,key=value`, each percent-encoded, as W3C Baggage has it."""
    pairs: dict[str, str] = {}
    for number, part in enumerate(text.split(","), start=1):
        if not part.strip():
            continue
        name, found, value = part.partition("=")
        if not found or not name.strip():
            raise ValueError(f"entry {number} of {variable} in the environment is not of the form key=value")
        pairs[unquote(name.strip())] = unquote(value.strip())
    return pairs
