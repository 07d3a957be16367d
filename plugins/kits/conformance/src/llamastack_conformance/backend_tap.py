"""A tap in the connection between a provider and its backend: it listens, injects answers, and breaks things.

It works on TCP; of HTTP/1.1 (RFC 9112) it understands only where a request ends.
"""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import anyio
from anyio.abc import ByteStream, SocketAttribute, TaskGroup
from anyio.lowlevel import checkpoint

from llamastack_conformance.breakage import Breakage, Fault
from llamastack_conformance.gate import Gate

_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"(?im)^content-length:[ \t]*(\d+)[ \t]*\r?$")
_CHUNKED = re.compile(rb"(?im)^transfer-encoding:.*chunked")
_HOST = re.compile(rb"(?im)^host:[^\r\n]*")
_LAST_CHUNK = b"0\r\n\r\n"
_TRICKLE_BYTES = 64
_TRICKLE_PAUSE_S = 0.004
_READ_WITHIN_STEPS = 3


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request as the provider sent it: head (with the request line) and body, in bytes."""

    head: bytes
    body: bytes

    @property
    def whole(self) -> bytes:
        return self.head + self.body


@dataclass(slots=True)
class Exchange:
    """A request, and the bytes of the backend's answer to it so far: head and body as they came."""

    request: Request
    answer: bytearray = field(default_factory=bytearray)
    loses: bool = False
    """Whether the answer is lost."""


@dataclass(slots=True, eq=False)
class _Connection:
    """One of the provider. exchange: the latest. held: whether an answer is held back.

    unanswered: the latest request, until its answer begins.
    """

    exchange: Exchange | None = None
    unanswered: Request | None = None
    held: bool = False

    def receive(self, request: Request) -> None:
        """A request came."""
        self.unanswered = request

    def answers(self) -> None:
        """Nobody waits for the beginning of an answer from now on."""
        self.unanswered = None

    def begin(self, exchange: Exchange) -> None:
        """A request was forwarded."""
        self.exchange = exchange

    def hold(self) -> None:
        """An answer is held back from now on."""
        self.held = True


Injected = bytes | Sequence[bytes] | None
"""An answer: whole, or in pieces that are sent one after the other; None forwards the request."""


def always(injected: Injected) -> Callable[[Request], Injected]:
    """The same answer to every request, for `Tap.disturb`."""
    return lambda _: injected


def answer(status: int, body: str, *, media_type: str = "application/json", **headers: str) -> bytes:
    """An HTTP answer; `retry_after="60"` is the header `retry-after`."""
    payload = body.encode()
    lines = [f"HTTP/1.1 {status} Injected", f"content-type: {media_type}", f"content-length: {len(payload)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "connection: close", "", ""]).encode() + payload


@dataclass
class Tap:
    """A relay between a provider and `target`; the provider gets `url` instead.

    inject: returns the answer to a request, which is not forwarded then; None forwards it. hangs: other requests are
    read and never answered. cuts: an answer ends in the middle of its body. holds: an answer stops in the middle of its
    body, and its connection stays open. trickles: answers are forwarded in small parts. gate: where each request waits
    before it is forwarded or answered. breakage: one request goes wrong.
    requests: the requests so far. dropped: those whose connection the backend closed before it began an answer; a
    client may send them again (RFC 9110, 9.2.2). exchanges: the forwarded ones with their answers. handed_on: forwarded
    bytes of answers. left: how often the provider closed a connection whose answer was held back. connections: accepted
    so far.
    """

    target: str
    inject: Callable[[Request], Injected] | None = None
    hangs: bool = False
    cuts: bool = False
    holds: bool = False
    trickles: bool = False
    gate: Gate | None = None
    breakage: Breakage | None = None
    requests: list[Request] = field(default_factory=list)
    dropped: list[Request] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    handed_on: int = 0
    left: int = 0
    holding: int = 0
    connections: int = 0
    _open: list[_Connection] = field(default_factory=list)
    _port: int = 0
    _group: TaskGroup | None = None
    _listeners: anyio.CancelScope | None = None
    _closed: anyio.Event = field(default_factory=anyio.Event)

    @property
    def url(self) -> str:
        parts = urlsplit(self.target)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(("http", f"{user}{at}127.0.0.1:{self._port}", parts.path, parts.query, ""))

    @property
    def sent(self) -> int:
        """How many requests came so far."""
        return len(self.requests)

    @property
    def open_held(self) -> int:
        """How many connections are open whose answer is held back."""
        return sum(connection.held for connection in self._open)

    def disturb(
        self,
        *,
        inject: Callable[[Request], Injected] | None = None,
        hangs: bool = False,
        cuts: bool = False,
        holds: bool = False,
        trickles: bool = False,
        gate: Gate | None = None,
    ) -> None:
        """Begin these faults, and stop all others."""
        self.inject, self.hangs, self.cuts, self.holds, self.trickles = inject, hangs, cuts, holds, trickles
        self.gate, self.breakage = gate, None

    def answer_by(self, inject: Callable[[Request], Injected]) -> None:
        """Answer requests by `inject`; other faults go on."""
        self.inject = inject

    def break_request(self, number: int, fault: Fault) -> Breakage:
        """Let one request go wrong, the `number`th from now, and stop all other faults."""
        self.clear()
        self.breakage = Breakage(number, fault)
        return self.breakage

    def clear(self) -> None:
        """Stop all faults."""
        self.disturb()

    async def refuse(self) -> None:
        """Close every connection and refuse new ones, as if nothing listened."""
        if self._listeners is not None:
            self._listeners.cancel()
            self._listeners = None
            await self._closed.wait()

    async def listen(self) -> None:
        """Accept connections, at the same port as before."""
        if self._listeners is not None or self._group is None:
            return
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=self._port)
        self._port = int(listener.extra(SocketAttribute.local_port))  # noqa: S610 - nothing of Django
        scope, closed = anyio.CancelScope(), anyio.Event()
        self._listeners, self._closed = scope, closed

        async def serve() -> None:
            try:
                with scope:
                    async with listener:
                        await listener.serve(self._connected)
            finally:
                closed.set()

        self._group.start_soon(serve, name="tap")

    async def start(self, group: TaskGroup) -> Self:
        self._group = group
        if not self._port:
            with socket.create_server(("127.0.0.1", 0)) as taken:
                self._port = taken.getsockname()[1]
        return self

    # ---- one connection ------------------------------------------------------------------------------------------

    async def _connected(self, client: ByteStream) -> None:
        self.connections += 1
        this = _Connection()
        self._open.append(this)
        # This block comes first: connecting to the backend may be cancelled, and then the client must be closed.
        async with client:
            try:
                async with await self._connect() as backend, anyio.create_task_group() as group:
                    group.start_soon(self._relay_answers, backend, client, group.cancel_scope, this, name="tap")
                    await self._relay_requests(client, backend, this)
                    group.cancel_scope.cancel()
            except (BaseExceptionGroup, OSError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
                _only_broken(error)
                self._drop(this)
            finally:
                self._open.remove(this)

    def _drop(self, this: _Connection) -> None:
        if this.unanswered is not None:
            self.dropped.append(this.unanswered)
            this.answers()

    async def _connect(self) -> ByteStream:
        """A connection to the real backend. Raises OSError."""
        parts = urlsplit(self.target)
        host = parts.hostname or ""
        if parts.scheme == "https":
            return await anyio.connect_tcp(
                host, parts.port or 443, tls=True, tls_standard_compatible=False, tls_hostname=host
            )
        return await anyio.connect_tcp(host, parts.port or 80)

    async def _relay_requests(self, client: ByteStream, backend: ByteStream, this: _Connection) -> None:
        waiting = b""
        while True:
            try:
                block = await client.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                self.left += bool(self.holding)
                return
            waiting += block
            while (request := _first_request(waiting)) is not None:
                waiting = waiting[len(request.whole) :]
                self.requests.append(request)
                this.receive(request)
                fault = self.breakage.next() if self.breakage else None
                if fault is Fault.closed:
                    this.answers()  # the tap closes here, not the backend
                    return
                if self.gate is not None:
                    await self.gate.passed()
                injected = _answer_of(fault) or (self.inject(request) if self.inject else None)
                if injected is not None:
                    this.answers()
                    await _send_injected(client, _half(injected) if self.cuts or self.holds else injected)
                    if self.cuts or (_closes(injected) and not self.holds):
                        return
                if self.holds if injected is not None else self.hangs:
                    self.holding += 1
                    this.hold()
                elif injected is None:
                    await self._forward(Exchange(request, loses=fault is Fault.lost), backend, this)

    async def _forward(self, exchange: Exchange, backend: ByteStream, this: _Connection) -> None:
        request = exchange.request
        real, head = urlsplit(self.target), request.head
        this.begin(exchange)
        self.exchanges.append(exchange)
        if real.scheme == "https":  # its certificate and virtual host need the real name
            head = _HOST.sub(b"host: " + real.netloc.rpartition("@")[2].encode(), head, count=1)
        await backend.send(head + request.body)

    async def _relay_answers(
        self, backend: ByteStream, client: ByteStream, whole: anyio.CancelScope, this: _Connection
    ) -> None:
        while True:
            try:
                block = await backend.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                if this.held:  # the backend closes a connection on which nothing came; the request still hangs
                    await anyio.sleep_forever()
                self._drop(this)
                whole.cancel()
                return
            this.answers()
            if this.exchange is not None:  # a backend may close a connection with an answer to no request
                this.exchange.answer.extend(block)
                if this.exchange.loses:
                    whole.cancel()
                    return
            body = _body_of(block)
            # Where answers are injected, the others belong to requests that prepare the call, such as one for a prompt.
            if body and (self.cuts or self.holds) and self.inject is None:
                await client.send(block[: len(block) - (len(body) + 1) // 2])
                if self.cuts:
                    whole.cancel()
                    return
                self.holding += 1
                this.hold()
                await anyio.sleep_forever()
            for piece in _pieces(block) if self.trickles else (block,):
                await client.send(piece)
                self.handed_on += len(piece)
                if self.trickles:
                    await anyio.sleep(_TRICKLE_PAUSE_S)


async def _send_injected(client: ByteStream, injected: bytes | Sequence[bytes]) -> None:
    for piece in (injected,) if isinstance(injected, bytes) else injected:
        await client.send(piece)
        for _ in range(_READ_WITHIN_STEPS):  # so that the provider reads each piece by itself
            await checkpoint()


def _half(injected: bytes | Sequence[bytes]) -> bytes:
    """An answer up to the middle of its body."""
    head, end, body = (injected if isinstance(injected, bytes) else b"".join(injected)).partition(_HEAD_END)
    return head + end + body[: len(body) // 2]


def _answer_of(fault: Fault | None) -> bytes | None:
    """The answer of a backend at a fault, if the fault is an answer."""
    if fault is Fault.error:
        return answer(500, '{"error": "the disk is full"}')
    return answer(404, '{"error": "not found"}') if fault is Fault.missing else None


def _closes(injected: bytes | Sequence[bytes]) -> bool:
    """Whether the connection ends with an injected answer: it says so, or its end is not in it."""
    head = (injected if isinstance(injected, bytes) else b"".join(injected)).partition(_HEAD_END)[0]
    framed = _LENGTH.search(head) or _CHUNKED.search(head)
    return framed is None or b"connection: close" in head.lower()


def _only_broken(error: BaseException) -> None:
    """Ignore broken connections, which a tap causes; raise any other error."""
    for part in error.exceptions if isinstance(error, BaseExceptionGroup) else (error,):
        if isinstance(part, BaseExceptionGroup):
            _only_broken(part)
        elif not isinstance(part, OSError | anyio.BrokenResourceError | anyio.ClosedResourceError):
            raise part


def _pieces(block: bytes) -> list[bytes]:
    return [block[at : at + _TRICKLE_BYTES] for at in range(0, len(block), _TRICKLE_BYTES)]


def _body_of(block: bytes) -> bytes:
    """The part of a block that is body: all of it, unless an answer begins in the block."""
    return block.partition(_HEAD_END)[2] if block.startswith(b"HTTP/1.") else block


def _first_request(waiting: bytes) -> Request | None:
    head, end, rest = waiting.partition(_HEAD_END)
    if not end:
        return None
    length = _LENGTH.search(head)
    if _CHUNKED.search(head):
        body, last, _ = rest.partition(_LAST_CHUNK)
        return Request(head + end, body + last) if last else None
    wanted = int(length[1]) if length else 0
    return Request(head + end, rest[:wanted]) if len(rest) >= wanted else None


@asynccontextmanager
async def tap(target: str, *, listens: bool = True) -> AsyncIterator[Tap]:
    """A tap before the server at `target`. listens: whether it accepts connections from the beginning."""
    async with anyio.create_task_group() as group:
        made = await Tap(target).start(group)
        if listens:
            await made.listen()
        try:
            yield made
        finally:
            group.cancel_scope.cancel()
