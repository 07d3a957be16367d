"""OTLP over gRPC.

Source: https://opentelemetry.io/docs/specs/otlp/#otlpgrpc.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path

import anyio
import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from llamastack.http.client import authorities
from llamastack.provider.errors import (
    LONGEST_WAIT_S,
    AuthenticationError,
    BackendError,
    InvalidRequestError,
    LlamaStackError,
    NotSupportedError,
    PermissionDeniedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
    RequestTooLargeError,
)
from llamastack_provider_opentelemetry.config import OpenTelemetryConfig
from llamastack_provider_opentelemetry.payloads import Payload, Signal
from llamastack_provider_opentelemetry.transport import shown

_METHODS: Mapping[Signal, str] = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
_TOO_LARGE = "message larger than max"  # the words of gRPC itself, in any language
_DETAILS = "grpc-status-details-bin"
_CODE = grpc.StatusCode
# Of these a second attempt is allowed; of all others it is not. RESOURCE_EXHAUSTED is in neither: see `_refusal`.
_PASSING: Mapping[grpc.StatusCode, type[LlamaStackError]] = {
    _CODE.CANCELLED: ProviderUnavailableError,
    _CODE.DEADLINE_EXCEEDED: ProviderTimeoutError,
    _CODE.ABORTED: ProviderUnavailableError,
    _CODE.OUT_OF_RANGE: ProviderUnavailableError,
    _CODE.UNAVAILABLE: ProviderUnavailableError,
    _CODE.DATA_LOSS: ProviderUnavailableError,
}
_LASTING: Mapping[grpc.StatusCode, type[LlamaStackError]] = {
    _CODE.INVALID_ARGUMENT: InvalidRequestError,
    _CODE.UNAUTHENTICATED: AuthenticationError,
    _CODE.PERMISSION_DENIED: PermissionDeniedError,
    _CODE.UNIMPLEMENTED: NotSupportedError,
}
# The provider's caller tries again, so gRPC itself does not, and it looks for a collector that was down often enough.
_OPTIONS = (
    ("grpc.enable_retries", 0),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.primary_user_agent", "llamastack"),
)


class GrpcTransport:
    """One channel, on the event loop that makes it."""

    def __init__(self, config: OpenTelemetryConfig) -> None:
        address = config.address()
        self.where = f"{'https' if address.secure else 'http'}://{address.target}"
        self._timeout_s = config.timeout_s
        self._compression = grpc.Compression.Gzip if config.compression == "gzip" else grpc.Compression.NoCompression
        self._headers = tuple((name.lower(), value.get_secret_value()) for name, value in config.headers.items())
        self._channel = (
            grpc.aio.secure_channel(
                address.target, grpc.ssl_channel_credentials(_certificates(config.ca_file)), options=_OPTIONS
            )
            if address.secure
            else grpc.aio.insecure_channel(address.target, options=_OPTIONS)
        )
        # The messages are serialized already, and the responses are read by whoever asks for them.
        self._calls = {signal: self._channel.unary_unary(method) for signal, method in _METHODS.items()}

    async def send(self, payload: Payload) -> bytes:
        call = self._calls[payload.signal](
            payload.body, timeout=self._timeout_s, metadata=self._headers, compression=self._compression
        )
        # Not `await call`: it would raise a cancellation of its own for that of a time limit, which anyio takes for
        # that of somebody else.
        done = anyio.Event()
        call.add_done_callback(lambda _: done.set())
        try:
            await done.wait()
        finally:
            call.cancel()  # which does nothing if it is done
        if call.cancelled():
            raise ProviderUnavailableError(f"the call of {self.where} was cancelled")
        try:
            response: bytes = await call
        except grpc.aio.AioRpcError as error:
            raise self._refusal(error) from None
        return response

    async def close(self) -> None:
        await self._channel.close()

    def _refusal(self, error: grpc.aio.AioRpcError) -> LlamaStackError:
        code = error.code()
        if code is _CODE.DEADLINE_EXCEEDED:
            return ProviderTimeoutError(f"{self.where} did not answer within {self._timeout_s:g} s")
        wait_s = _retry_after_in(error.trailing_metadata() or ())
        kind = _PASSING.get(code) or _LASTING.get(code, BackendError)
        words = shown(error.details() or "")
        if code is _CODE.RESOURCE_EXHAUSTED and wait_s is not None:
            kind = RateLimitError  # without a time the collector says that it will never take the request
        elif code is _CODE.RESOURCE_EXHAUSTED and _TOO_LARGE in words:
            kind = RequestTooLargeError
        return kind(f"{self.where} answered {code.name}" + (f": {words}" if words else ""), retry_after=wait_s)


def _retry_after_in(trailers: Iterable[tuple[str, str | bytes]]) -> float | None:
    """Seconds until the collector wants to be asked again, from RetryInfo in a google.rpc.Status."""
    for name, value in trailers:
        if name == _DETAILS and isinstance(value, bytes):
            try:
                details = Status.FromString(value).details
                for detail in details:
                    info = RetryInfo()
                    if detail.Is(RetryInfo.DESCRIPTOR) and detail.Unpack(info):
                        wait_s = float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
                        return min(max(0.0, wait_s), LONGEST_WAIT_S)
            except DecodeError:
                return None
    return None


def _certificates(ca_file: Path | None) -> bytes:
    """The usual authorities and those of `ca_file`, in PEM: gRPC takes them in place of its own."""
    usual = authorities(ca_file).get_ca_certs(binary_form=True)
    texts = [ssl.DER_cert_to_PEM_cert(each) for each in usual]
    if ca_file is not None:
        texts.append(ca_file.read_text(encoding="ascii"))  # also a certificate that is no authority's
    return "\n".join(texts).encode()
