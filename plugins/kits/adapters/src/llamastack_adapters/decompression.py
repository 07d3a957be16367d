"""The bodies of answers: decompressed in small steps, and limited while they come.

A body may decompress to a thousand times its size, so it is decompressed in steps. Each step is counted, and the event
loop runs between two steps.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Mapping

import anyio.lowlevel

from llamastack.http.answer_limits import MOST_ERROR_BYTES, AnswerLimits, beginning_of, too_large
from llamastack.http.sse import too_long_event
from llamastack.provider.errors import BackendError

ACCEPTED = "gzip, deflate"
"""The content encodings that requests accept."""
_STEP = 64 * 1024
_MOST_ENCODINGS = 2
_LINES = ("text/event-stream", "application/x-ndjson", "application/stream+json", "application/jsonl")


def is_stream_of_lines(headers: Mapping[str, str]) -> bool:
    """Whether an answer is a stream; then only the size of each event is limited."""
    return headers.get("content-type", "").lower().startswith(_LINES)


async def unpacked(blocks: AsyncIterator[bytes], encoding: str, where: str) -> AsyncIterator[bytes]:
    """The body of an answer with this content encoding, in blocks of at most 64 KiB.

    Raises BackendError if the encoding was not requested, or if the body is not in it or ends early.
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
        raise BackendError(f"{where} answered with a body that cannot be decompressed as {name}") from error
    if inflater.cut_off:
        raise BackendError(f"the answer was cut short at {where}")


class _Inflater:
    """Undoes gzip, which may have several members, or deflate, which some servers send without its wrapping."""

    def __init__(self, name: str) -> None:
        self._gzip = name != "deflate"
        self._begun = False
        self._inflate = zlib.decompressobj(31 if self._gzip else 15)

    def step(self, block: bytes) -> tuple[bytes, bytes]:
        """The decompressed beginning of `block`, and the rest of the block."""
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


async def limited_lines(blocks: AsyncIterator[bytes], most: int, where: str) -> AsyncIterator[bytes]:
    """The same blocks. Raises BackendError when a line of theirs is more than `most` bytes."""
    size = 0
    async for block in blocks:
        end = block.rfind(b"\n")
        size = size + len(block) if end < 0 else len(block) - end - 1
        if size > most:
            raise too_long_event(most, where)
        yield block


async def bounded_blocks(
    blocks: AsyncIterator[bytes], headers: Mapping[str, str], limits: AnswerLimits, where: str, *, is_error: bool
) -> AsyncIterator[bytes]:
    """The body of an answer: unpacked, and no longer than the limits allow; of an error, the beginning."""
    encoding = headers.get("content-encoding")
    if encoding:
        blocks = unpacked(blocks, encoding, where)
    if is_error:
        yield await beginning_of(blocks, MOST_ERROR_BYTES)
        return
    if is_stream_of_lines(headers):
        blocks = limited_lines(blocks, limits.event_bytes, where)
    else:
        blocks = limited(blocks, limits.response_bytes, where)
    async for block in blocks:
        yield block
