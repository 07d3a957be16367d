"""Attributes, ids and the resource as OTLP messages.

Source: https://github.com/open-telemetry/opentelemetry-proto, by the generated messages of `opentelemetry-proto`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from llamastack_provider_opentelemetry.config import OpenTelemetryConfig

SCOPE_NAME = "llamastack"
INT64 = range(-(2**63), 2**63)
_DEEPEST = 30  # each level of JSON is three of messages, of which protobuf reads 100
_FIELDS: Mapping[type, str] = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}


def key_values(attributes: Mapping[str, object]) -> list[dict[str, object]]:
    """Attributes for a repeated field of `KeyValue`.

    Raises ValueError, when the message is made, for what protobuf refuses; see `sendable`.
    """
    # perf: llamastack-v1-otlp. A message made of nested mappings takes a third of the time of one made of messages.
    return [
        {"key": name, "value": {_FIELDS[type(value)]: value} if type(value) in _FIELDS else any_value(value)}
        for name, value in attributes.items()
    ]


def any_value(value: object, depth: int = 0) -> dict[str, object]:
    """A value as JSON has them, for a field of `AnyValue`: one that is not set is null.

    A value that is nested deeper than readers allow becomes text.
    """
    if type(value) in _FIELDS:
        return {_FIELDS[type(value)]: value}
    if value is None:
        return {}
    if isinstance(value, Mapping) and depth < _DEEPEST:
        pairs = [{"key": str(name), "value": any_value(inner, depth + 1)} for name, inner in value.items()]
        return {"kvlist_value": {"values": pairs}}
    if isinstance(value, list | tuple) and depth < _DEEPEST:
        return {"array_value": {"values": [any_value(inner, depth + 1) for inner in value]}}
    return {"string_value": str(value)}


def sendable(value: Any) -> Any:
    """The same value without what protobuf refuses.

    A question mark stands for each half of a surrogate pair, and text for a whole number of more than 64 bits.
    """
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if type(value) is int and value not in INT64:
        return str(value)
    if isinstance(value, Mapping):
        return {sendable(name): sendable(inner) for name, inner in value.items()}
    return [sendable(inner) for inner in value] if isinstance(value, list | tuple) else value


def id_bytes(text: str, size: int) -> bytes:
    """An id as OTLP has it: `size` bytes. Any other text than hexadecimal digits of that size gives its hash."""
    try:
        made = bytes.fromhex(text if len(text) == 2 * size else text.replace("-", ""))
    except ValueError:
        made = b""
    if len(made) == size and made != bytes(size):
        return made
    return hashlib.sha256(text.encode(errors="replace")).digest()[:size]


def resource_of(config: OpenTelemetryConfig, instance_id: str) -> Resource:
    """What is said of this stack.

    instance_id: of this process, for `service.instance.id`.
    """
    own = version("llamastack")
    attributes: dict[str, object] = {
        "telemetry.sdk.name": SCOPE_NAME,
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": own,
        "service.name": config.service_name,
        "service.version": own,
        "service.instance.id": instance_id,
        **config.resource_attributes,
    }
    resource = Resource()
    for pair in key_values(sendable(attributes)):
        resource.attributes.add(**pair)
    return resource


def scope() -> InstrumentationScope:
    """What makes the spans, log records and metrics."""
    return InstrumentationScope(name=SCOPE_NAME, version=version("llamastack-telemetry"))


def joined(*mappings: Mapping[str, object] | None) -> dict[str, object]:
    """All attributes; those of later mappings go first."""
    found: dict[str, object] = {}
    for each in mappings:
        found.update(each or {})
    return found


def foreign_ids(ids: Iterable[tuple[str, str, bytes]]) -> dict[str, object]:
    """Attributes with the ids that had to be hashed, as they were: of (attribute, text, bytes)."""
    return {name: text for name, text, made in ids if text.replace("-", "").lower() != made.hex()}
