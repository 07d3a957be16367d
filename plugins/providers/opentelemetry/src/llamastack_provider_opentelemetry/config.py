"""The config of the provider."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from llamastack_adapters.remote_inference import CaFile
from llamastack_provider_opentelemetry.environment import with_environment

Protocol = Literal["http/protobuf", "grpc"]
Attribute = str | bool | int | float | list[str]
_DEFAULT_ENDPOINTS: Mapping[Protocol, str] = {
    "http/protobuf": "http://localhost:4318",
    "grpc": "http://localhost:4317",
}
_SIGNAL_PATH = re.compile(r"/v1/(traces|logs|metrics)/?$")
_HEADER_NAME = re.compile(r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
_HEADER_VALUE = re.compile(r"^[\x20-\x7e]*$")
_OWN_HEADERS = {"content-type", "content-length", "content-encoding", "host", "transfer-encoding"}


class Address(NamedTuple):
    """Where the collector is.

    base: without the path of a signal and without a slash at its end. target: host and port. secure: whether by TLS.
    """

    base: str
    target: str
    secure: bool


def _check_headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, value in headers.items():
        if not _HEADER_NAME.match(name):
            raise ValueError(f"{name!r} is no name of a header")
        if name.lower() in _OWN_HEADERS:
            raise ValueError(f"'{name}' cannot be set: it follows from what is sent")
        if not _HEADER_VALUE.match(value.get_secret_value()):
            raise ValueError(f"the value of '{name}' has other characters than printable ASCII")
    return headers


class OpenTelemetryConfig(BaseModel):
    """Where the collector is, how it is reached, and what is said of this stack.

    Fields that are not given have the values of OpenTelemetry's environment variables; see `environment`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, protected_namespaces=())

    endpoint: str | None = Field(
        None,
        description="URL of the collector, with or without `/v1/traces`. Default: `OTEL_EXPORTER_OTLP_ENDPOINT`, else "
        "`http://localhost:4318/v1/traces`, and `http://localhost:4317` for gRPC",
    )
    protocol: Protocol = Field("http/protobuf", description="How OTLP is spoken; `grpc` needs the extra `grpc`")
    headers: Annotated[dict[str, SecretStr], AfterValidator(_check_headers)] = Field(
        default_factory=dict,
        description="Headers of each request, such as a key of the collector. Default: `OTEL_EXPORTER_OTLP_HEADERS`",
    )
    ca_file: CaFile | None = Field(
        None, description="PEM file of certificates to trust in addition to the usual authorities"
    )
    insecure: bool = Field(False, description="gRPC without TLS, for an `endpoint` without `http://` or `https://`")
    timeout_s: float = Field(10.0, gt=0, le=600, description="Seconds that the collector has for an answer")
    compression: Literal["gzip", "none"] = Field("gzip", description="How requests are compressed")
    service_name: str = Field(
        "llamastack", min_length=1, description="Name of this stack. Default: `OTEL_SERVICE_NAME`, else `llamastack`"
    )
    resource_attributes: dict[str, Attribute] = Field(
        default_factory=dict,
        description="More about this stack, such as `deployment.environment.name`, in addition to "
        "`OTEL_RESOURCE_ATTRIBUTES`",
    )
    sampling_ratio: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of traces that are sent. It depends on the trace id alone, so a trace is sent whole or not "
        "at all, by every worker",
    )
    max_request_bytes: int = Field(
        4_000_000, ge=65_536, description="Most bytes of a request before compression; more spans make more requests"
    )
    max_waiting_events: int = Field(
        10_000, ge=1, description="Most events of `log_event` that wait; further ones are dropped, and counted"
    )
    max_waiting_bytes: int = Field(
        16_000_000,
        ge=65_536,
        description="Most bytes of events of `log_event` that wait; further ones are dropped, and counted",
    )
    max_event_bytes: int = Field(
        32_768, ge=1024, description="Bytes that an event of `log_event` may have as JSON; a larger one is refused"
    )
    open_span_timeout_s: float = Field(
        3600.0, gt=0, description="Seconds that a span of `log_event` may last; then it is dropped, and counted"
    )

    @model_validator(mode="before")
    @classmethod
    def _add_environment(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        if "jaeger_host" in given or "jaeger_port" in given:
            raise ValueError(
                "'jaeger_host' and 'jaeger_port' are of an agent that Jaeger has no more; name its collector as "
                "'endpoint', such as http://jaeger:4318"
            )
        return with_environment(given, os.environ)

    @model_validator(mode="after")
    def _has_room_for_an_event(self) -> Self:
        if self.max_event_bytes > self.max_waiting_bytes:
            raise ValueError(
                f"'max_event_bytes' ({self.max_event_bytes}) is more than 'max_waiting_bytes' "
                f"({self.max_waiting_bytes}), so such an event would always be dropped"
            )
        return self

    @model_validator(mode="after")
    def _has_an_address(self) -> Self:
        self.address()
        return self

    def address(self) -> Address:
        """Where the collector is. Raises ValueError where `endpoint` is none."""
        endpoint = self.endpoint or _DEFAULT_ENDPOINTS[self.protocol]
        is_grpc = self.protocol == "grpc"
        has_scheme = "://" in endpoint
        parts = urlsplit(endpoint if has_scheme else f"//{endpoint}")
        _check_parts(parts.scheme, parts.hostname, has_scheme=has_scheme or not is_grpc)
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("'endpoint' has no user, password, query or fragment; a key belongs in 'headers'")
        if is_grpc and _SIGNAL_PATH.sub("", parts.path).strip("/"):
            raise ValueError(f"'endpoint' of gRPC has no path, but this one has '{parts.path}'")
        if self.insecure and (parts.scheme == "https" or not is_grpc):
            raise ValueError("'insecure' is for gRPC and an 'endpoint' that does not begin with https://")
        secure = parts.scheme == "https" or (not has_scheme and not self.insecure)
        default_port = 4317 if is_grpc else 443 if secure else 80
        target = parts.netloc if _port(parts.netloc) else f"{parts.netloc}:{default_port}"
        scheme = parts.scheme or ("https" if secure else "http")
        return Address(f"{scheme}://{parts.netloc}{_SIGNAL_PATH.sub('', parts.path).rstrip('/')}", target, secure)


def _check_parts(scheme: str, host: str | None, *, has_scheme: bool) -> None:
    if (has_scheme and scheme not in ("http", "https")) or not host:
        raise ValueError("'endpoint' is not like http://localhost:4318 or https://collector.example/v1/traces")


def _port(netloc: str) -> int | None:
    try:
        return urlsplit(f"//{netloc}").port
    except ValueError:
        raise ValueError("'endpoint' has a port that is no number from 0 to 65535") from None
