"""What stands in the place of the backend: one that records it, or one that plays what was recorded."""

from __future__ import annotations

import math
from contextlib import aclosing, suppress
from typing import Protocol
from urllib.parse import urlsplit

import anyio
import httpx
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectSendStream

from llamastack_conformance.cassettes.cassette import MOST_BYTES_OF_AN_EXCHANGE, Cassette, End, Recorded
from llamastack_conformance.cassettes.http_server import Asked, Reply
from llamastack_conformance.cassettes.matching import Player, key_of
from llamastack_conformance.cassettes.scrubbing import Scrubber

KEPT_HEADERS = ("content-type", "retry-after", "etag", "link", "allow", "x-amzn-errortype")
"""Headers of an answer that are recorded. Others do not reach the provider, in a recording neither."""
_OF_THE_CONNECTION = (
    "host",
    "connection",
    "keep-alive",
    "content-length",
    "transfer-encoding",
    "te",
    "accept-encoding",
)
_END_WITHIN_S = 0.5
_NOT_RECORDED = 501
_PAUSES_BETWEEN_PIECES = 3


class Deck(Protocol):
    """Answers the provider's requests in the place of its backend."""

    def begin(self, check: str) -> None:
        """The requests from now on are those of this check."""

    async def handle(self, asked: Asked, reply: Reply) -> None:
        """Answer a request."""

    async def aclose(self) -> None:
        """Close connections."""


class Recorder:
    """Hands requests on to the backend, and keeps what it answers, without secrets.

    url: of the backend. cassette: is filled.
    """

    def __init__(self, url: str, cassette: Cassette, scrubber: Scrubber) -> None:
        parts = urlsplit(url)
        self._origin = httpx.URL(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")
        self._cassette = cassette
        self._scrubber = scrubber
        self._check = ""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        self._client = httpx.AsyncClient(timeout=None, limits=limits)  # noqa: S113 - the provider has its own limits
        self._client.headers.clear()

    async def aclose(self) -> None:
        await self._client.aclose()

    def begin(self, check: str) -> None:
        self._check = check

    async def handle(self, asked: Asked, reply: Reply) -> None:
        self._scrubber.learn(asked.headers, asked.target)
        kept = Recorded(asked.method, asked.target, asked.body)
        mine = self._cassette.checks.setdefault(self._check, [])
        mine.append(kept)
        kept_headers = [(name, value) for name, value in asked.headers if name.lower() not in _OF_THE_CONNECTION]
        headers = [
            (name.encode("latin-1"), value.encode("latin-1"))  # as they came
            for name, value in (*kept_headers, ("accept-encoding", "identity"))
        ]
        request = self._client.build_request(
            asked.method,
            self._origin.copy_with(raw_path=asked.target.encode("latin-1")),
            headers=headers,
            content=asked.body or None,
        )
        try:
            response = await self._client.send(request, stream=True)
        except httpx.TransportError:
            mine.remove(kept)  # the backend gave no answer, and the connection closes without one here, too
            return
        await self._relay(response, reply, kept)

    async def _relay(self, response: httpx.Response, reply: Reply, kept: Recorded) -> None:
        headers = [(name, response.headers[name]) for name in KEPT_HEADERS if name in response.headers]
        length = response.headers.get("content-length")
        kept.answered(response.status_code, headers, framed=length is None)
        give, take = anyio.create_memory_object_stream[bytes](math.inf)
        # Many clients do not wait for the end of a stream: when one has left, the rest may still come for a moment.
        reading = anyio.CancelScope(shield=True)
        async with anyio.create_task_group() as group, take:
            group.start_soon(self._read, response, give, kept, reading, name="cassette-backend")
            try:
                with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # the client has left
                    await reply.begin(kept.status, kept.headers, None if length is None else int(length))
                    async for piece in take:
                        await reply.piece(piece)
                    if kept.end is End.whole:
                        await reply.end()
            finally:
                reading.deadline = anyio.current_time() + _END_WITHIN_S

    async def _read(
        self,
        response: httpx.Response,
        give: MemoryObjectSendStream[bytes],
        kept: Recorded,
        reading: anyio.CancelScope,
    ) -> None:
        """Keep the pieces of an answer, and give them to the client while it is there."""
        check, size = self._check, len(kept.body)
        with reading:
            async with give, aclosing(response):
                try:
                    async for piece in response.aiter_raw():
                        size += len(piece)
                        if size <= MOST_BYTES_OF_AN_EXCHANGE:
                            kept.pieces.append(piece)
                        else:
                            self._leave_out(check, kept)
                        with suppress(anyio.BrokenResourceError):  # the client has left
                            give.send_nowait(piece)
                    kept.ended(End.whole)
                except httpx.TransportError:
                    kept.ended(End.cut)

    def _leave_out(self, check: str, kept: Recorded) -> None:
        """Leave out a check with an exchange that is too large to be kept."""
        kept.pieces.clear()
        self._cassette.left_out[check] = (
            f"the cassette lacks an exchange of more than {MOST_BYTES_OF_AN_EXCHANGE // 2**20} MiB: {kept.method} "
            f"{self._scrubber.text(kept.target)}"
        )


class Replayer:
    """Answers requests from a cassette; it connects to nothing.

    missing: requests of the running check that have no recorded answer.
    """

    def __init__(self, cassette: Cassette, scrubber: Scrubber) -> None:
        self.player = Player(cassette)
        self._scrubber = scrubber
        self.missing: list[str] = []

    async def aclose(self) -> None:
        return  # it holds no connection

    def begin(self, check: str) -> None:
        self.missing.clear()
        self.player.begin(check)

    def _found(self, asked: Asked) -> Recorded | None:
        self._scrubber.learn(asked.headers, asked.target)
        scrubbed = key_of(asked.method, self._scrubber.text(asked.target), self._scrubber.data(asked.body))
        found = self.player.find(scrubbed)
        if found is None:  # the keys of a replay are often words, such as "none", which texts have, too
            found = self.player.find(key_of(asked.method, asked.target, asked.body))
        return found

    async def handle(self, asked: Asked, reply: Reply) -> None:
        found = self._found(asked)
        if found is None:
            await self._refuse(asked, reply)
            return
        if found.status:
            await reply.begin(found.status, found.headers, None if found.framed else _length(found))
        for piece in found.pieces:
            await reply.piece(piece)
            for _ in range(_PAUSES_BETWEEN_PIECES):  # so that the provider reads each piece by itself
                await checkpoint()
        if found.end is End.left:
            await anyio.sleep_forever()  # until the client leaves, as it did
        if found.end is End.whole:
            await reply.end()

    async def _refuse(self, asked: Asked, reply: Reply) -> None:
        what = self._scrubber.text(f"{asked.method} {asked.target}")
        content = self._scrubber.data(asked.body)[:200].decode(errors="replace")
        self.missing.append(f"{what} {content}".rstrip())
        text = f'{{"error": "the cassette has no answer to {asked.method}"}}'.encode()
        await reply.begin(_NOT_RECORDED, [("content-type", "application/json")], len(text))
        await reply.piece(text)
        await reply.end()


def _length(found: Recorded) -> int:
    return len(found.answer)
