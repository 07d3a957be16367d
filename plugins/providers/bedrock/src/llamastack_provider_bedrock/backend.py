"""Calls Bedrock through botocore, with one client per service. Failures become llamastack errors."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import anyio
import anyio.to_thread
from aiobotocore.config import AioConfig  # type: ignore[import-untyped]
from aiobotocore.session import AioSession  # type: ignore[import-untyped]
from botocore import exceptions as aws  # type: ignore[import-untyped]
from botocore.eventstream import ParserError  # type: ignore[import-untyped]
from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]

from llamastack.http.connections import retry_stale_connection
from llamastack.http.retry_headers import retry_after_of, should_retry_of
from llamastack.provider import (
    BackendError,
    Deps,
    InvalidRequestError,
    LlamaStackError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from llamastack.provider.connection_errors import reason_at
from llamastack.provider.descriptor_shortage import is_shortage
from llamastack.provider.errors import ServerBusyError
from llamastack.provider.streams import Stream
from llamastack_adapters.decompression import limited
from llamastack_adapters.error_bodies import error_of_status
from llamastack_adapters.openai_dialect import understood
from llamastack_provider_bedrock.config import BedrockConfig
from llamastack_provider_bedrock.credentials import CallCredentials
from llamastack_provider_bedrock.sessions import session_class

RUNTIME = "bedrock-runtime"
CONTROL = "bedrock"
_MOST_CONNECTIONS = 1000
_BLOCK = 64 * 1024
_FAILURES = (aws.BotoCoreError, aws.ClientError, aiohttp.ClientError, ParserError, ResponseParserError, TimeoutError)
# AWS's error codes, in lower case, that the HTTP status does not tell, or that arrive inside a stream.
_STATUS_OF = {
    "unrecognizedclientexception": 401,
    "invalidclienttokenid": 401,
    "invalidsignatureexception": 401,
    "signaturedoesnotmatch": 401,
    "expiredtokenexception": 401,
    "incompletesignature": 401,
    "missingauthenticationtokenexception": 401,
    "missingauthenticationtoken": 401,
    "servicequotaexceededexception": 429,
    "throttlingexception": 429,
    "validationexception": 400,
    "internalserverexception": 500,
    "serviceunavailableexception": 503,
    "modelstreamerrorexception": 424,
    "modeltimeoutexception": 408,
}


class Bedrock:
    """Both services of Bedrock.

    `open` comes before the first call. Calls raise llamastack errors. Cancelling a call or closing a stream closes its
    connection, so Bedrock can stop its work.
    """

    def __init__(self, config: BedrockConfig, deps: Deps) -> None:
        self.credentials = CallCredentials(config, deps)
        self._config = config
        self._provider_id = deps.provider_id
        self._opened: AsyncExitStack | None = None
        self._clients: dict[str, Any] = {}
        self._where = {RUNTIME: "", CONTROL: ""}

    async def open(self) -> None:
        """Make the clients. This makes no connection to Bedrock, but may look for credentials at a metadata service."""
        # With a root logger at DEBUG, botocore would log session tokens and all content.
        for name in ("botocore", "aiobotocore"):
            if logging.getLogger(name).level == logging.NOTSET:
                logging.getLogger(name).setLevel(logging.INFO)
        session = await anyio.to_thread.run_sync(_session, self._config)
        await self.credentials.look_in(session.get_component("credential_provider"))
        session.register_component("credential_provider", self.credentials)
        own, control = self._config.endpoint_url, self._config.control_endpoint_url
        async with AsyncExitStack() as opened:
            for service, url in ((RUNTIME, own), (CONTROL, control or own)):
                context = session.create_client(
                    service,
                    endpoint_url=None if url is None else str(url).rstrip("/"),
                    config=self._client_config(),
                )
                try:
                    self._clients[service] = await opened.enter_async_context(context)
                except aws.NoRegionError:
                    raise ProviderUnavailableError(
                        "no AWS region: set 'region_name' in its config, AWS_DEFAULT_REGION, or one in the AWS profile"
                    ) from None
                parts = urlsplit(self._clients[service].meta.endpoint_url)
                self._where[service] = f"{parts.scheme}://{parts.netloc}"
            self._opened = opened.pop_all()

    def _client_config(self) -> Any:
        return AioConfig(
            connect_timeout=self._config.connect_timeout_s,
            read_timeout=self._config.timeout_s,
            max_pool_connections=_MOST_CONNECTIONS,
            http_session_cls=session_class(self._config.max_response_bytes, self._config.ca_file),
            # Our own config sets the retries.
            retries={"total_max_attempts": 1, "mode": "standard"},
            # Otherwise a token in AWS_BEARER_TOKEN_BEDROCK would replace every client's own credentials.
            signature_version="v4",
        )

    async def close(self) -> None:
        """Close the connections; safe to call twice, and without `open`."""
        opened, self._opened = self._opened, None
        self._clients.clear()
        if opened is not None:
            await opened.aclose()

    async def call(self, service: str, operation: str, **arguments: Any) -> Any:
        """The answer of `operation`, retried after a rate limit as the config says."""
        return await self._config.retries.run(lambda: self._once(service, operation, arguments))

    async def stream(self, operation: str, **arguments: Any) -> Stream[Mapping[str, Any]]:
        """The events of `operation`. Returns when Bedrock has begun to answer, so that a refusal is raised here."""
        reply = await self.call(RUNTIME, operation, **arguments)

        async def close() -> None:
            reply["stream"].close()

        return Stream(self._events(reply["stream"]), close)

    async def _once(self, service: str, operation: str, arguments: Mapping[str, Any]) -> Any:
        client = self._clients.get(service)
        if client is None:
            raise ProviderUnavailableError("it is not started")
        try:
            # botocore checks little of what it parses.
            with understood(self._provider_id):
                reply = await retry_stale_connection(lambda: getattr(client, operation)(**arguments), _was_dropped)
            if "body" in reply:
                reply["body"] = await self._read(reply["body"], self._where[service])
        except _FAILURES as error:
            raise await self._failed(error, self._where[service]) from error
        return reply

    async def _read(self, body: Any, where: str) -> bytes:
        async def blocks() -> AsyncIterator[bytes]:
            while block := await body.read(_BLOCK):
                yield block

        try:
            return b"".join([block async for block in limited(blocks(), self._config.max_response_bytes, where)])
        except BaseException:
            body.close()  # what is left of the answer would keep the connection until it is collected
            raise

    async def _events(self, events: Any) -> AsyncIterator[Mapping[str, Any]]:
        try:
            with understood(self._provider_id):
                async for event in events:
                    yield event
        except _FAILURES as error:
            raise await self._failed(error, self._where[RUNTIME]) from error

    async def _failed(self, error: Exception, where: str) -> LlamaStackError:
        match error:
            case aws.ClientError():
                return await self.credentials.explained(_refused(error, where))
            case aws.ParamValidationError():
                return InvalidRequestError(" ".join(str(error).split()))
            case aws.BotoCoreError() if is_shortage(error.kwargs.get("error") or error):
                return ServerBusyError(reason_at(error.kwargs.get("error") or error, where))
            case aws.SSLError():
                return ProviderUnavailableError(reason_at(error.kwargs.get("error", error), where))
            case aws.ConnectTimeoutError():
                return ProviderUnavailableError(f"no connection in {self._config.connect_timeout_s:g} s at {where}")
            case aws.ReadTimeoutError() | TimeoutError():
                return ProviderTimeoutError(f"{where} was silent for {self._config.timeout_s:g} s")
            case aws.ConnectionClosedError() | aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError():
                return BackendError(f"{where} broke off its answer")
            case aws.ConnectionError() | aiohttp.ClientConnectionError():
                inner = error.kwargs.get("error", error) if isinstance(error, aws.BotoCoreError) else error
                return ProviderUnavailableError(reason_at(inner, where))
        return BackendError(f"{where} answered something that cannot be understood: {type(error).__name__}")


def _session(config: BedrockConfig) -> Any:
    """A session with botocore's data files already loaded, which is slow."""
    session = AioSession(profile=config.profile_name)
    if config.region_name is not None:
        session.set_config_variable("region", config.region_name)
    for service in (RUNTIME, CONTROL):
        session.warm_up_loader_caches(service)
    session.get_scoped_config()
    return session


def _was_dropped(error: Exception) -> bool:
    """Whether the connection of a request ended before the answer began."""
    if not isinstance(error, aws.ConnectionClosedError | aws.EndpointConnectionError):
        return False
    cause = error.kwargs.get("error")
    lost = isinstance(cause, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)
    return lost and not isinstance(cause, aiohttp.ClientConnectorError)


def _refused(error: Any, where: str) -> LlamaStackError:
    fields = error.response.get("Error", {})
    meta = error.response.get("ResponseMetadata", {})
    code, message = str(fields.get("Code", "")), " ".join(str(fields.get("Message", "")).split())
    # The error for a wrong signature repeats all signed data.
    message = message.partition(" The Canonical String for this request")[0]
    status = _STATUS_OF.get(code.lower(), meta.get("HTTPStatusCode", 500))
    if isinstance(error, aws.EventStreamError):
        return error_of_status(status, f"{where} broke off: {message or code or 'it does not say why'}", code=code)
    text = f"{where} answered {meta.get('HTTPStatusCode')}" + (f": {message}" if message else "")
    if status in (404, 405) and not code.endswith("Exception"):
        return BackendError(f"{text}; is the endpoint_url in the config right?")
    headers = meta.get("HTTPHeaders", {})
    made = error_of_status(status, text, code=code, retry_after=retry_after_of(headers))
    return made.amend(should_retry=should_retry_of(headers))
