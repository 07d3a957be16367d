"""HTTP/1.1 over a bare socket, for what a client library would blur: the moment at which bytes arrive."""

from __future__ import annotations

import re
from types import TracebackType

import anyio
from anyio.abc import SocketStream
from servers import HOST, Request

_RECEIVE_BYTES = 65536
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_SILENCE_S = 30
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class ReplyError(Exception):
    """A reply was no 200, or broke off."""


def request_bytes(request: Request, port: int) -> bytes:
    """The request as it goes over the wire, on a connection that is kept."""
    body = request.body or b""
    head = f"{request.method} {request.path} HTTP/1.1\r\nHost: {HOST}:{port}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in request.headers)
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Connection:
    """One connection, for one request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stream: SocketStream | None = None
        self._received = b""

    async def __aenter__(self) -> Connection:
        self._stream = await anyio.connect_tcp(HOST, self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            await self._stream.aclose()

    async def send(self, request: bytes) -> None:
        assert self._stream is not None
        self._received = b""
        await self._stream.send(request)

    async def until(self, marker: bytes) -> None:
        """Wait until the reply holds the marker. Raises ReplyError."""
        while marker not in self._received:
            await self._more()
        self._check()

    async def whole(self) -> bytes:
        """Wait for the rest of the reply and return it, head included. Raises ReplyError."""
        while not self._complete():
            await self._more()
        self._check()
        return self._received

    async def _more(self) -> None:
        assert self._stream is not None
        try:
            with anyio.fail_after(_SILENCE_S):
                self._received += await self._stream.receive(_RECEIVE_BYTES)
        except TimeoutError:
            raise ReplyError(f"silent for {_SILENCE_S} s after {self._received[-200:]!r}") from None
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            raise ReplyError(f"broke off after {self._received[:200]!r}") from None

    def _check(self) -> None:
        if not self._received.startswith(b"HTTP/1.1 200"):
            raise ReplyError(f"not a 200: {self._received[:200]!r}")

    def _complete(self) -> bool:
        head, found, body = self._received.partition(b"\r\n\r\n")
        length = _content_length(head)
        if length is not None:
            return len(body) >= length
        # Chunked; no event holds the last chunk's bytes.
        return bool(found) and body.endswith(_LAST_CHUNK)


def body_of(reply: bytes) -> bytes:
    """The body of a whole reply, without the frames of its chunks."""
    head, _, rest = reply.partition(b"\r\n\r\n")
    if _content_length(head) is not None:
        return rest
    chunks = []
    at = 0
    while size := int(rest[at : (end := rest.index(b"\r\n", at))], 16):
        chunks.append(rest[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(chunks)


def _content_length(head: bytes) -> int | None:
    found = _LENGTH.search(head)
    return int(found[1]) if found else None
