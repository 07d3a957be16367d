"""A client that writes what it is told to, at its own pace: for requests that no HTTP library would send."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field

import anyio
import anyio.abc
import httpx

_HEAD = re.compile(rb"HTTP/1\.1 (\d+) ")


@dataclass
class RawClient:
    """One connection. answer: what the server wrote so far. closed: whether the server closed it, and how."""

    stream: anyio.abc.SocketStream
    answer: bytes = b""
    closed: str = ""

    async def send(self, data: bytes) -> bool:
        """False where the server reads no more."""
        try:
            await self.stream.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, ssl.SSLError):
            return False
        return True

    async def read(self, *, until: bytes | None = None, timeout_s: float = 10) -> bytes:
        """What comes until the end, or until the answer has `until` in it. Raises TimeoutError."""
        with anyio.fail_after(timeout_s):
            while until is None or until not in self.answer:
                try:
                    self.answer += await self.stream.receive()
                except anyio.EndOfStream:
                    self.closed = "end"
                    break
                except anyio.BrokenResourceError:
                    self.closed = "reset"
                    break
        return self.answer

    @property
    def statuses(self) -> list[int]:
        return [int(status) for status in _HEAD.findall(self.answer)]

    @property
    def body(self) -> bytes:
        return self.answer.partition(b"\r\n\r\n")[2]

    @property
    def head(self) -> str:
        return self.answer.partition(b"\r\n\r\n")[0].decode().lower()


@dataclass
class RawClients:
    """Opens connections to the server of an HTTP client, and closes them at the end."""

    client: httpx.AsyncClient
    opened: list[RawClient] = field(default_factory=list)

    async def __aenter__(self) -> RawClients:
        return self

    async def __aexit__(self, *_: object) -> None:
        for raw in self.opened:
            await anyio.aclose_forcefully(raw.stream)

    async def open(self, data: bytes = b"") -> RawClient:
        url = self.client.base_url
        raw = RawClient(await anyio.connect_tcp(str(url.host), url.port or 80))
        self.opened.append(raw)
        if data:
            await raw.send(data)
        return raw

    async def ask(self, data: bytes, timeout_s: float = 10) -> RawClient:
        """A connection that was asked this, and what the server answered to its end."""
        raw = await self.open(data)
        await raw.read(timeout_s=timeout_s)
        return raw


def request(method: str, target: str, body: bytes = b"", *more: str, host: str | None = "localhost") -> bytes:
    """A whole request, after whose reply the connection is closed. more: lines of the head."""
    lines = [f"{method} {target} HTTP/1.1", "Connection: close", *more]
    if host is not None:
        lines.append(f"Host: {host}")
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode("latin-1") + body
