"""Small POST requests by aiohttp's connections and parser, without the layers of its session.

# perf: llamastack-v1. The session makes a request object, a task for the body and a response object, and looks at
cookies, redirects, middleware and proxies. That takes a third of the time of a request of `/v1` that is only forwarded,
and none of it is used here. Connections, their limits and time-outs, TLS and parsing are still aiohttp's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

import aiohttp
import yarl
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.helpers import TimerNoop, strip_auth_from_url
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_writer import StreamWriter
from multidict import CIMultiDict

_MOST_TARGETS = 1000
_NO_TIMER = TimerNoop()


class Answer(Protocol):
    """What `aiohttp.ClientResponse` and `DirectAnswer` have in common."""

    status: int
    content: aiohttp.StreamReader
    method: str

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def url(self) -> yarl.URL: ...

    def release(self) -> object:
        """Let go of the connection; it is closed where the body was not read to its end."""
        ...


class DirectAnswer:
    """The answer to a request; its head has arrived."""

    __slots__ = ("_connection", "content", "headers", "method", "status", "url")

    def __init__(
        self,
        url: yarl.URL,
        connection: Connection,
        status: int,
        headers: Mapping[str, str],
        content: aiohttp.StreamReader,
    ) -> None:
        self.method = "POST"
        self.url = url
        self.status = status
        self.headers = headers
        self.content = content
        self._connection = connection
        content.on_eof(connection.release)

    def release(self) -> None:
        """As `Answer` has it."""
        content = self.content
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientConnectionError("Connection closed"))
        self._connection.release()


class _Target(aiohttp.ClientRequest):
    """What the connector needs to know of a request: where it goes. One serves all requests to a URL."""

    def __init__(self, given: str, session: aiohttp.ClientSession) -> None:
        url, auth = strip_auth_from_url(yarl.URL(given))
        super().__init__("POST", url, data=b"", auth=auth, loop=asyncio.get_running_loop(), session=session)
        self.line: str = f"POST {url.raw_path_qs} HTTP/1.1"
        """The request line."""
        self._key = super().connection_key

    @property
    def connection_key(self) -> ConnectionKey:
        return self._key

    def headers_of(self, given: Mapping[str, str], content: bytes) -> CIMultiDict[str]:
        """The headers of one request. given: those that its sender sets."""
        headers = self.headers.copy()
        headers.update(given)
        headers["Content-Length"] = str(len(content))
        return headers


class DirectPosts:
    """Sends small POST requests through the connector of a session.

    timeout: `connect`, `sock_connect` and `sock_read` of it count.
    """

    def __init__(self, session: aiohttp.ClientSession, timeout: aiohttp.ClientTimeout) -> None:
        self._session = session
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._targets: dict[str, _Target] = {}

    def _target(self, url: str) -> _Target:
        if len(self._targets) >= _MOST_TARGETS:
            self._targets.clear()
        made = self._targets[url] = _Target(url, self._session)
        return made

    async def send(self, url: str, given: Mapping[str, str], content: bytes) -> DirectAnswer:
        """The answer, once its head has arrived. Raises what a session of aiohttp raises."""
        try:
            return await self._send(url, given, content)
        except OSError as error:
            if isinstance(error, aiohttp.ClientError) or (error.errno is None and isinstance(error, TimeoutError)):
                raise
            raise aiohttp.ClientOSError(*error.args) from error

    async def _send(self, url: str, given: Mapping[str, str], content: bytes) -> DirectAnswer:
        target = self._targets.get(url) or self._target(url)
        headers = target.headers_of(given, content)
        connector = self._session.connector
        if connector is None:
            raise RuntimeError("Session is closed")
        try:
            connection = await connector.connect(target, [], self._timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {target.url}") from error
        try:
            return await self._exchange(target, connection, headers, content)
        except BaseException:
            connection.close()  # also where this is cancelled: the backend sees that nobody waits
            raise

    async def _exchange(
        self,
        target: _Target,
        connection: Connection,
        headers: CIMultiDict[str],
        content: bytes,
    ) -> DirectAnswer:
        protocol = connection.protocol
        if protocol is None:
            raise aiohttp.ClientConnectionResetError("Connection lost")
        protocol.set_response_params(
            timer=_NO_TIMER, auto_decompress=False, read_timeout=self._timeout.sock_read, read_until_eof=True
        )
        writer = StreamWriter(protocol, self._loop)
        await writer.write_headers(target.line, headers)
        await writer.write(content, drain=False)  # it may be answered before all of it is read
        protocol.start_timeout()
        try:
            while True:
                message, body = await protocol.read()
                if not 100 <= message.code < 200 or message.code == 101:
                    return DirectAnswer(target.url, connection, message.code, message.headers, body)
        except HttpProcessingError as error:
            raise aiohttp.ClientResponseError(
                target.request_info, (), status=error.code, message=error.message, headers=error.headers
            ) from error
