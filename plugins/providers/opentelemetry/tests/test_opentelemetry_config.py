"""The config: addresses, headers, the environment's defaults, and errors that say what is wrong."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from pydantic import ValidationError

from llamastack.provider import Deps
from llamastack_provider_opentelemetry.config import OpenTelemetryConfig
from llamastack_provider_opentelemetry.provider import get_adapter_impl


@pytest.mark.parametrize(
    ("config", "base", "target", "secure"),
    [
        ({}, "http://localhost:4318", "localhost:4318", False),
        ({"protocol": "grpc"}, "http://localhost:4317", "localhost:4317", False),
        ({"endpoint": "http://a:1/v1/traces"}, "http://a:1", "a:1", False),
        ({"endpoint": "https://a/otlp/v1/traces/"}, "https://a/otlp", "a:443", True),
        ({"endpoint": "https://a/otlp/"}, "https://a/otlp", "a:443", True),
        ({"endpoint": "http://[::1]:4318"}, "http://[::1]:4318", "[::1]:4318", False),
        ({"protocol": "grpc", "endpoint": "a:1"}, "https://a:1", "a:1", True),
        ({"protocol": "grpc", "endpoint": "a:1", "insecure": True}, "http://a:1", "a:1", False),
        ({"protocol": "grpc", "endpoint": "https://a"}, "https://a", "a:4317", True),
        ({"protocol": "grpc", "endpoint": "http://a:1"}, "http://a:1", "a:1", False),
    ],
)
def test_the_endpoint_is_read(config: dict[str, Any], base: str, target: str, secure: bool) -> None:
    assert OpenTelemetryConfig(**config).address() == (base, target, secure)


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"endpoint": "localhost:4318"}, "is not like http://localhost:4318"),
        ({"endpoint": "ftp://a"}, "is not like http://localhost:4318"),
        ({"endpoint": "http://me:pw@a"}, "a key belongs in 'headers'"),
        ({"endpoint": "http://a/?key=b"}, "a key belongs in 'headers'"),
        ({"endpoint": "http://a:99999"}, "has a port that is no number"),
        ({"endpoint": "http://a/x", "protocol": "grpc"}, "'endpoint' of gRPC has no path, but this one has '/x'"),
        ({"endpoint": "https://a", "protocol": "grpc", "insecure": True}, "'insecure' is for gRPC"),
        ({"insecure": True}, "'insecure' is for gRPC"),
        ({"headers": {"a b": "c"}}, "'a b' is no name of a header"),
        ({"headers": {"Content-Type": "c"}}, "'Content-Type' cannot be set"),
        ({"headers": {"a": "secret\nb"}}, "the value of 'a' has other characters than printable ASCII"),
        ({"ca_file": "/nowhere.pem"}, "cannot be read"),
        ({"sampling_ratio": 2}, "less than or equal to 1"),
        ({"protocol": "http/json"}, "'http/protobuf' or 'grpc'"),
        ({"jaeger_host": "a"}, "name its collector as 'endpoint'"),
        ({"endpont": "http://a"}, "Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_is_said(config: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ValidationError, match=r".") as raised:
        OpenTelemetryConfig(**config)
    assert wanted in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "pw" not in str(raised.value)


@pytest.mark.anyio
async def test_grpc_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    monkeypatch.delitem(sys.modules, "llamastack_provider_opentelemetry.grpc_transport", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'llamastack-provider-opentelemetry\[grpc\]'"):
        await get_adapter_impl(OpenTelemetryConfig(protocol="grpc"), Deps(provider_id="a"))


def test_the_environment_has_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b, other = c=d ,")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment.name=prod,zone=a")
    config = OpenTelemetryConfig(resource_attributes={"zone": "b"})
    assert config.address().base == "https://collector"
    assert {name: value.get_secret_value() for name, value in config.headers.items()} == {
        "x-key": "a b",
        "other": "c=d",
    }
    assert config.service_name == "shop"
    assert config.resource_attributes == {"deployment.environment.name": "prod", "zone": "b"}
    assert "a b" not in repr(config)
    given = OpenTelemetryConfig(endpoint="http://own", headers={}, service_name="own")
    assert (given.address().base, given.headers, given.service_name) == ("http://own", {}, "own")


def test_an_empty_variable_is_none_and_the_service_has_its_name_from_the_attributes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=other")
    config = OpenTelemetryConfig()
    assert (config.address().base, config.service_name) == ("http://localhost:4318", "other")
    assert config.resource_attributes == {}


def test_a_variable_that_cannot_be_read_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "a=b,secret-alone")
    with pytest.raises(ValidationError) as raised:
        OpenTelemetryConfig()
    assert "entry 2 of OTEL_EXPORTER_OTLP_HEADERS in the environment is not of the form key=value" in str(raised.value)
    assert "secret-alone" not in str(raised.value)
