"""How much a server or backend may answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from llamastack.http.sse import MOST_EVENT_BYTES
from llamastack.provider.errors import BackendError

MOST_ERROR_BYTES = 64 * 1024
"""The most bytes to read of an error's body."""
MOST_RESPONSE_BYTES = 64 * 2**20
"""The default limit for a whole answer, in bytes."""


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """How long the answers of a backend may be.

    response_bytes: a whole answer, when it is unpacked. event_bytes: one event of a stream.
    """

    response_bytes: int = MOST_RESPONSE_BYTES
    event_bytes: int = MOST_EVENT_BYTES


def too_large(where: str, most: int) -> BackendError:
    """The error for an answer over the limit. where: scheme, host and port of the backend."""
    return BackendError(f"{where} answered more than {most} bytes ('max_response_bytes' in the config)")


async def whole(blocks: AsyncIterator[bytes], most: int, where: str, first: bytes = b"") -> bytes:
    """`first` and what the blocks have, as one. Raises BackendError when that is more than `most` bytes.

    Use it for any body that is read to its end: an answer that claims to be a stream has no other limit.
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
