"""Takes the content of calls: what was asked, and what the reply was. It exists only in stacks that ask for content."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextvars import Context, ContextVar, copy_context
from typing import Any, NamedTuple

from pydantic import BaseModel

from llamastack.provider import hookimpl
from llamastack.provider.provider_call import CallEvent, Proceed, ProviderCall
from llamastack.provider.streams import closing

MOST_OF_A_STREAM = 4 * 1024 * 1024
"""Bytes of a stream that are kept; most of them are names of fields, not text."""
_CHAT, _COMPLETION, _QUERY = "chat_completion", "completion", "query_documents"
_CAPTURED = frozenset([("inference", _CHAT), ("inference", _COMPLETION), ("memory", _QUERY)])
_ARGUMENTS = {_CHAT: "messages", _COMPLETION: "content", _QUERY: "query"}
_OF_AN_OBJECT = 64
_MOST_NODES = 20_000


class RawContent(NamedTuple):
    """The content of one call as it came.

    method: of the native API. body: of a request in OpenAI's form. asked: the argument of a native call. reply: whole,
    or the pieces of a stream, in order. size: about how many bytes that is. context: of the request, whose secrets are
    to be struck out.
    """

    method: str
    body: bytes | None
    asked: object
    reply: object
    size: int
    context: Context


class _Collected:
    """The pieces of one stream. taken: whether the call has begun that they belong to."""

    __slots__ = ("pieces", "size", "taken")

    def __init__(self) -> None:
        self.pieces: list[object] = []
        self.size = 0
        self.taken = False

    def take(self) -> bool:
        """Whether no call has taken it before."""
        first, self.taken = not self.taken, True
        return first

    def add(self, piece: object) -> None:
        """Keep a piece, if there is room."""
        self.size += size_of(piece)
        if self.size <= MOST_OF_A_STREAM:
            self.pieces.append(piece)


_next: ContextVar[_Collected | None] = ContextVar("llamastack_collected_content", default=None)
"""What collects the stream of the call that is about to begin."""


class ContentCapture:
    """Collects the pieces of streams, and gives the content of calls that have ended."""

    def __init__(self) -> None:
        self._streams: dict[str, _Collected] = {}

    @hookimpl(trylast=True)
    async def llamastack_around_call(self, call: ProviderCall, proceed: Proceed) -> Any:
        """Innermost, so that it sees what the provider gets and gives."""
        if not call.stream or (call.api, call.method) not in _CAPTURED:
            return await proceed(call)
        collected = _Collected()
        entered = _next.set(collected)
        try:
            pieces = await proceed(call)
        finally:
            _next.reset(entered)
        return _collecting(pieces, collected)

    @hookimpl
    def llamastack_call_started(self, event: CallEvent) -> None:
        collected = _next.get()
        if collected is not None and collected.take():
            self._streams[event.call_id] = collected

    def take(self, event: CallEvent) -> RawContent | None:
        """The content of a call that has ended; None if content of such calls is not kept."""
        collected = self._streams.pop(event.call_id, None)
        call = event.call
        if call is None or (event.api, event.method) not in _CAPTURED:
            return None
        reply = event.reply if collected is None else collected.pieces
        asked = None if call.body is not None else call.request.get(_ARGUMENTS[event.method])
        size = size_of(call.body) + size_of(asked) + (size_of(reply) if collected is None else collected.size)
        return RawContent(event.method, call.body, asked, reply, size, copy_context())


async def _collecting(pieces: AsyncIterator[Any], collected: _Collected) -> AsyncIterator[Any]:
    async with closing(pieces):
        async for piece in pieces:
            collected.add(piece)
            yield piece


def size_of(value: object) -> int:
    """About how many bytes a value has."""
    if isinstance(value, bytes):
        return len(value)
    total, waiting, seen = 0, [value], 0
    while waiting and seen < _MOST_NODES:
        seen += 1
        one = waiting.pop()
        total += _OF_AN_OBJECT
        if isinstance(one, str | bytes):
            total += len(one)
        elif isinstance(one, Mapping):
            waiting.extend(one.values())
        elif isinstance(one, BaseModel):
            waiting.extend(vars(one).values())
        elif isinstance(one, Sequence):
            waiting.extend(one)
    return total
