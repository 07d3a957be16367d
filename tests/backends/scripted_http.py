"""A scripted HTTP backend: it writes the bytes that a test gives it, whatever they are, and keeps what it is sent.

```python
with scripted_http() as backend:
    backend.answers.append(answer(429, {"error": {"message": "slow down"}}, headers={"Retry-After": "3"}))
    backend.answers.append(sse({"choices": []}, "[DONE]"))
    backend.answers.append([b"HTTP/1.1 200 OK\\r\\nContent-Le", CLOSE])
    ... call backend.url ...
    assert backend.received[-1].json["model"] == "m"
```

It also is the fixture `scripted_backend`, and `served_by(backend)` is the run config of an instance before it.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

MODEL = "m"


class End(Enum):
    """How a connection ends."""

    CLOSE = "in order"
    RESET = "reset"
    HOLD = "never: nothing more comes, and it stays open"


CLOSE, RESET, HOLD = End

Steps = Sequence["bytes | float | End | Callable[[], bytes]"]
"""Bytes to write (or a function that makes them), seconds to wait, how the connection ends. Where it is not said to
end, it is kept for the next request.
"""


@dataclass(frozen=True)
class Received:
    """A request. headers: by name in lower case. connection: its number, from 1."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


Answer = Steps | Callable[[Received], Steps]


def answer(
    status: int = 200,
    body: object = b"",
    *,
    content_type: str | None = "application/json",
    headers: Mapping[str, str] | None = None,
    end: End | None = None,
) -> Steps:
    """A whole answer. body: bytes or text as they are, anything else as JSON. content_type: None for none."""
    content = _bytes_of(body)
    lines = [f"HTTP/1.1 {status} Scripted", f"Content-Length: {len(content)}"]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    steps: list[Any] = ["\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content]
    return steps if end is None else [*steps, end]


def chunked(
    *blocks: bytes | float | End | Callable[[], bytes],
    status: int = 200,
    content_type: str | None = "text/event-stream",
    headers: Mapping[str, str] | None = None,
) -> Steps:
    """An answer in chunks, one for each block of bytes; it is complete unless an `End` stands in it."""
    lines = [f"HTTP/1.1 {status} Scripted", "Transfer-Encoding: chunked"]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    steps: list[Any] = ["\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"]
    for block in blocks:
        if isinstance(block, bytes):
            steps.append(_chunk(block))
        elif callable(block):
            steps.append(lambda make=block: _chunk(make()))
        else:
            steps.append(block)
    return steps if any(isinstance(block, End) for block in blocks) else [*steps, b"0\r\n\r\n"]


def sse(*events: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Steps:
    """Server-sent events, each in a chunk of its own.

    events: text becomes `data: text`, bytes are written as they are, seconds are waited for, an `End` ends it early,
    anything else becomes `data:` with its JSON.
    """
    blocks = [
        event if isinstance(event, bytes | float | End) else b"data: " + _bytes_of(event) + b"\n\n" for event in events
    ]
    return chunked(*blocks, status=status, headers=headers)


def _chunk(block: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(block), block) if block else b""


def _bytes_of(body: object) -> bytes:
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


@dataclass
class ScriptedHttp:
    """answers: those to the next requests, oldest first; a function is called with the request.
    routes: by the end of a path, for requests beyond `answers`. `/models` has a list of `models` unless told otherwise.
    default: for all else. lists: whether `/models` is answered by its route even while there are `answers`.
    greeting: written to each connection before anything is read. received: requests, oldest first. connections: how
    many there were.
    """

    url: str = ""
    models: list[str] = field(default_factory=lambda: [MODEL])
    answers: deque[Answer] = field(default_factory=deque)
    routes: dict[str, Answer] = field(default_factory=dict)
    default: Answer = field(default_factory=lambda: answer(404, {"error": {"message": "not scripted"}}))
    lists: bool = True
    greeting: Steps = ()
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    broken_off: int = 0
    """Connections that the other side left while an answer was being written."""
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def last(self, path: str) -> Received:
        """The newest request to a path that ends so."""
        return next(seen for seen in reversed(self.received) if seen.path.endswith(path))

    def calls(self) -> list[Received]:
        """The requests but for those of the list of models."""
        return [seen for seen in self.received if not seen.path.endswith("/models")]

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    # ---- one connection ------------------------------------------------------------------------------------------

    async def _listen(self, tls: ssl.SSLContext | None, backlog: int) -> None:
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", 0, ssl=tls, limit=2**20, backlog=backlog
        )
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{port}"

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self._open.add(writer)
        try:
            if self.greeting and not await self._write(self.greeting, writer):
                return
            while (request := await _request(reader, number)) is not None:
                self.received.append(request)
                if not await self._write(self._steps(request), writer):
                    return
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            self.broken_off += 1
        finally:
            self._open.discard(writer)
            with suppress(Exception):
                writer.close()

    def _steps(self, request: Received) -> Steps:
        path = request.path.partition("?")[0]
        if self.lists and path.endswith("/models"):
            chosen = self.routes.get("/models") or answer(200, _listing(self.models))
        elif self.answers:
            chosen = self.answers.popleft()
        else:
            chosen = next((made for end, made in self.routes.items() if path.endswith(end)), self.default)
        return chosen(request) if callable(chosen) else chosen

    async def _write(self, steps: Steps, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection is still open."""
        for step in steps:
            if isinstance(step, End):
                await writer.drain()
                if step is HOLD:
                    await asyncio.Event().wait()
                if step is RESET:
                    raw = writer.get_extra_info("socket")
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    writer.transport.abort()
                return False
            if isinstance(step, float | int):
                await writer.drain()
                await asyncio.sleep(step)
            else:
                writer.write(step() if callable(step) else step)
                await writer.drain()
        return True


async def _request(reader: asyncio.StreamReader, connection: int) -> Received | None:
    """The next request; None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = b""
    if "chunked" in headers.get("transfer-encoding", ""):
        while size := int(re.split(rb"[;\r]", await reader.readline())[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    elif length := int(headers.get("content-length", 0)):
        body = await reader.readexactly(length)
    method, path, *_ = first.split(" ")
    return Received(method, path, headers, body, connection)


def _listing(models: Sequence[str]) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": 0, "owned_by": "t"} for name in models],
    }


def served_by(backend: ScriptedHttp, provider_type: str = "remote::openai", **config: Any) -> dict[str, Any]:
    """An entry of a run config's inference providers whose backend is this one; its id is `p`."""
    path = config.pop("path", "/v1")
    return {"provider_id": "p", "provider_type": provider_type, "config": {"url": backend.url + path, **config}}


@contextmanager
def scripted_http(*, tls: ssl.SSLContext | None = None, backlog: int = 1024, **settings: Any) -> Iterator[ScriptedHttp]:
    """A scripted backend on a free port of 127.0.0.1, in a thread of its own.

    tls: speak TLS with this context. settings: attributes of `ScriptedHttp`.
    """
    backend = ScriptedHttp(**settings)
    thread = threading.Thread(target=backend._loop.run_forever, name="scripted-http")
    thread.start()
    try:
        backend._run(backend._listen(tls, backlog))
        yield backend
    finally:
        with suppress(Exception):
            backend._run(backend._shut())
        backend._loop.call_soon_threadsafe(backend._loop.stop)
        thread.join(10)
        backend._loop.close()
