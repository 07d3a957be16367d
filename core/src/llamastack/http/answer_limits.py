"""How much a backend may answer: limits on bodies, and decompression in small steps.

A compressed body may be a thousandth of what it unpacks to, so that it is unpacked step by step, counted, and the loop
runs in between.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import anyio.lowlevel

from llamastack.http.sse import MOST_EVENT_BYTES, too_long_event
from llamastack.provider.errors import BackendError

ACCEPTED = "gzip, deflate"
"""The content encodings that are asked for, and understood."""
MOST_ERROR_BYTES = 64 * 1024
"""How much of the body of an error is read."""
MOST_RESPONSE_BYTES = 64 * 2**20
"""The default of how long a whole answer may be."""
_STEP = 64 * 1024
_MOST_ENCODINGS = 2
_LINES = ("text/event-stream", "application/x-ndjson", "application/stream+json", "application/jsonl")


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """How long the answers of a backend may be.

    response_bytes: a whole answer, when it is unpacked. event_bytes: one event of a stream.
    """

    response_bytes: int = MOST_RESPONSE_BYTES
    event_bytes: int = MOST_EVENT_BYTES


def is_stream_of_lines(headers: Mapping[str, str]) -> bool:
    """Whether an answer is a stream, of which each event alone is limited."""
    return headers.get("content-type", "").lower().startswith(_LINES)


def too_large(where: str, most: int) -> BackendError:
    """The error for an answer over the limit. where: scheme, host and port of the backend."""
    return BackendError(f"{where} answered more than {most} bytes ('max_response_bytes' in the config)")


async def unpacked(blocks: AsyncIterator[bytes], encoding: str, where: str) -> AsyncIterator[bytes]:
    """The body of an answer with this content encoding, in blocks of at most 64 KiB.

    Raises BackendError for an encoding that was not asked for, and for a body that is not in it or ends early.
    """
    names = [name for part in encoding.lower().split(",") if (name := part.strip()) not in ("", "identity")]
    if len(names) > _MOST_ENCODINGS or not {"gzip", "x-gzip", "deflate"}.issuperset(names):
        raise BackendError(f"{where} answered with content-encoding '{encoding[:100]}', which was not asked for")
    for name in reversed(names):
        blocks = _inflated(blocks, name, where)
    async for block in blocks:
        yield block


async def _inflated(blocks: AsyncIterator[bytes], name: str, where: str) -> AsyncIterator[bytes]:
    inflater = _Inflater(name)
    try:
        async for block in blocks:
            while block:
                made, block = inflater.step(block)
                if made:
                    yield made
                await anyio.lowlevel.checkpoint()  # a block may become a thousand, of events that take time to read
    except zlib.error as error:
        raise BackendError(f"{where} answered what cannot be unpacked as {name}") from error
    if inflater.cut_off:
        raise BackendError(f"the answer was cut short at {where}")


class _Inflater:
    """Undoes gzip, which may have several members, or deflate, which some servers send without its wrapping."""

    def __init__(self, name: str) -> None:
        self._gzip = name != "deflate"
        self._begun = False
        self._inflate = zlib.decompressobj(31 if self._gzip else 15)

    def step(self, block: bytes) -> tuple[bytes, bytes]:
        """What is made of the beginning of `block`, and the rest of it."""
        if self._inflate.eof:
            if not self._gzip or not block.lstrip(b"\0"):
                return b"", b""  # padding
            self._inflate = zlib.decompressobj(31)
        try:
            made = self._inflate.decompress(block, _STEP)
        except zlib.error:
            if self._begun or self._gzip:
                raise
            self._inflate = zlib.decompressobj(-15)
            made = self._inflate.decompress(block, _STEP)
        self._begun = True
        rest = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
        return made, rest

    @property
    def cut_off(self) -> bool:
        return self._begun and not self._inflate.eof


async def limited(blocks: AsyncIterator[bytes], most: int, where: str) -> AsyncIterator[bytes]:
    """The same blocks. Raises BackendError when they are more than `most` bytes."""
    size = 0
    async for block in blocks:
        size += len(block)
        if size > most:
            raise too_large(where, most)
        yield block


async def whole(blocks: AsyncIterator[bytes], most: int, where: str, first: bytes = b"") -> bytes:
    """`first` and what the blocks have, as one. Raises BackendError when that is more than `most` bytes.

    For what is read to its end, whatever it says that it is: an answer that calls itself a stream has no limit else.
    """
    kept = [first]
    size = len(first)
    async for block in blocks:
        kept.append(block)
        size += len(block)
        if size > most:
            kept.clear()  # the error's traceback holds this list
            raise too_large(where, most)
    return b"".join(kept)


async def limited_lines(blocks: AsyncIterator[bytes], most: int, where: str) -> AsyncIterator[bytes]:
    """The same blocks. Raises BackendError when a line of theirs is more than `most` bytes."""
    size = 0
    async for block in blocks:
        end = block.rfind(b"\n")
        size = size + len(block) if end < 0 else len(block) - end - 1
        if size > most:
            raise too_long_event(most, where)
        yield block


async def beginning_of(blocks: AsyncIterator[bytes], most: int) -> bytes:
    """The first `most` bytes; what comes after them is left unread."""
    kept: list[bytes] = []
    size = 0
    async for block in blocks:
        kept.append(block[: most - size])
        size += len(block)
        if size >= most:
            break
    return b"".join(kept)
