"""OTLP over HTTP, in protobuf.

Source: https://opentelemetry.io/docs/specs/otlp/#otlphttp.
"""

from __future__ import annotations

import gzip

import anyio
import anyio.to_thread
import httpx
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status

from llamastack.http.answer_limits import AnswerLimits
from llamastack.http.client import authorities
from llamastack.http.retry_headers import retry_after_of
from llamastack.provider.connection_errors import connection_error
from llamastack.provider.errors import (
    AuthenticationError,
    BackendError,
    InvalidRequestError,
    LlamaStackError,
    NotFoundError,
    PermissionDeniedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
    RequestTooLargeError,
)
from llamastack_adapters.error_bodies import parse_error_body
from llamastack_adapters.http_client import http_client
from llamastack_provider_opentelemetry.config import OpenTelemetryConfig
from llamastack_provider_opentelemetry.payloads import Payload
from llamastack_provider_opentelemetry.transport import shown

_MOST_ANSWER_BYTES = 1_000_000
_GZIP_LEVEL = 1  # spans repeat the same names: a higher level saves 1 % of the bytes and takes three times as long
# Of these a second attempt is allowed; of all others it is not.
_PASSING = {
    429: RateLimitError,
    502: ProviderUnavailableError,
    503: ProviderUnavailableError,
    504: ProviderTimeoutError,
}
_LASTING = {
    400: InvalidRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    413: RequestTooLargeError,
}


class HttpTransport:
    """One client, and so one pool of connections."""

    def __init__(self, config: OpenTelemetryConfig) -> None:
        address = config.address()
        self._base = address.base
        self._timeout_s = config.timeout_s
        self._gzip = config.compression == "gzip"
        headers = {name: value.get_secret_value() for name, value in config.headers.items()}
        headers |= {"Content-Type": "application/x-protobuf"}
        if self._gzip:
            headers |= {"Content-Encoding": "gzip"}
        self._client = http_client(
            headers=headers,
            timeout=config.timeout_s,
            verify=authorities(config.ca_file) if address.secure else False,
            answer_limits=AnswerLimits(_MOST_ANSWER_BYTES, _MOST_ANSWER_BYTES),
        )
        self.where = f"{'https' if address.secure else 'http'}://{address.target}"

    async def send(self, payload: Payload) -> bytes:
        body = payload.body
        if self._gzip:
            body = await anyio.to_thread.run_sync(gzip.compress, body, _GZIP_LEVEL)
        too_slow = f"{self.where} did not answer within {self._timeout_s:g} s"
        try:
            with anyio.fail_after(self._timeout_s):
                response = await self._client.post(f"{self._base}/v1/{payload.signal}", content=body)
        except TimeoutError:
            raise ProviderTimeoutError(too_slow) from None
        except httpx.HTTPError as error:
            failed = connection_error(error, too_slow)
            # What breaks off in the middle may be whole at the next attempt.
            raise (ProviderUnavailableError(failed.message) if isinstance(failed, BackendError) else failed) from error
        if response.is_success:
            return response.content
        raise self._refusal(response)

    async def close(self) -> None:
        await self._client.aclose()

    def _refusal(self, response: httpx.Response) -> LlamaStackError:
        status = response.status_code
        kind = _PASSING.get(status) or _LASTING.get(status, BackendError)
        words = shown(_words_in(response))
        if response.is_redirect:
            words = "a redirect; is the 'endpoint' in the config right?"
        message = f"{self.where} answered {status}" + (f": {words}" if words else "")
        retry_after = retry_after_of(response.headers) if status in _PASSING else None
        return kind(message, retry_after=retry_after, backend_status=status)


def _words_in(response: httpx.Response) -> str:
    """The message in a refusal: a google.rpc.Status, as OTLP wants it, or whatever gateways answer."""
    if "protobuf" in response.headers.get("content-type", ""):
        try:
            return str(Status.FromString(response.content).message)
        except DecodeError:
            return ""
    return parse_error_body(response.content).message
