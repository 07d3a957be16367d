"""Tells plugins of every call of a provider: when it starts, and how it ended."""

from __future__ import annotations

import itertools
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from llamastack.api.inference import TokenUsage
from llamastack.provider.context import EnteredContext, RequestContext, current_context
from llamastack.provider.errors import LlamaStackError
from llamastack.provider.provider_call import CallEvent, ProviderCall
from llamastack.provider.streams import close

# Unescaped quotes, so it is a name of a field and no text of the model.
_PROMPT_TOKENS = re.compile(rb'"prompt_tokens"\s*:\s*(\d+)')
_COMPLETION_TOKENS = re.compile(rb'"completion_tokens"\s*:\s*(\d+)')
_Listener = Callable[..., None]
_About = tuple[str, str | None, str, str, str, str, str, str | None]
_PROCESS = f"{random.getrandbits(48):012x}-"
"""So that ids of several workers differ."""
_numbers = itertools.count(1)


class CallEvents:
    """started, finished: tell the plugins, where some listen."""

    def __init__(self, started: _Listener | None, finished: _Listener | None) -> None:
        self.started = started
        self.finished = finished
        self.are_heard = started is not None or finished is not None
        """Whether anybody listens."""

    async def around(self, call: ProviderCall, provider_type: str, made: Awaitable[Any]) -> Any:
        """Await `made`, and tell of it."""
        context = current_context()
        call_id = f"{_PROCESS}{next(_numbers):x}"
        about = (
            call_id,
            context.call_id,
            call.api,
            call.method,
            call.identifier,
            call.provider_id,
            provider_type,
            context.request_id,
        )
        if self.started is not None:
            self.started(event=CallEvent(*about))
        followed = _FollowedCall(about, context.within_call(call_id), self.finished)
        with EnteredContext(followed.context):
            try:
                reply = await made
            except BaseException as raised:
                followed.end(raised)
                raise
        if isinstance(reply, AsyncIterator):
            return _FollowedStream(reply, followed)
        followed.count(reply)
        followed.end()
        return reply


class _FollowedCall:
    """The state of a running call."""

    __slots__ = ("_about", "_began", "_ended", "_finished", "_first", "_input", "_output", "context")

    def __init__(self, about: _About, context: RequestContext, finished: _Listener | None) -> None:
        self.context = context
        self._about = about
        self._finished = finished
        self._began = time.perf_counter()
        self._first: float | None = None
        self._input: int | None = None
        self._output: int | None = None
        self._ended = False

    def count(self, piece: object) -> None:
        """Take in a reply, or a piece of one."""
        if isinstance(piece, bytes):
            at = piece.rfind(b'"usage"')
            if at >= 0 and (found := _PROMPT_TOKENS.search(piece, at)):
                self._input = int(found[1])
                made = _COMPLETION_TOKENS.search(piece, at)
                self._output = 0 if made is None else int(made[1])
            return
        usage = piece.get("usage") if isinstance(piece, Mapping) else getattr(piece, "usage", None)
        if isinstance(usage, TokenUsage):
            self._input, self._output = usage.prompt_tokens, usage.completion_tokens
        elif isinstance(usage, Mapping):
            self._input, self._output = usage.get("prompt_tokens"), usage.get("completion_tokens")

    def count_piece(self, piece: object) -> None:
        """The same of a stream."""
        if self._first is None:
            self._first = time.perf_counter() - self._began
        self.count(piece)

    def end(self, raised: BaseException | None = None, *, closed: bool = False) -> None:
        """Tell how it ended, once. closed: by the one who reads it, before its end."""
        if self._ended:
            return
        self._ended = True
        if self._finished is None:
            return
        cancelled = closed or not (raised is None or isinstance(raised, Exception))
        self._finished(
            event=CallEvent(
                *self._about,
                "cancelled" if cancelled else "ok" if raised is None else "error",
                raised.code if isinstance(raised, LlamaStackError) else None,
                time.perf_counter() - self._began,
                self._first,
                self._input,
                self._output,
            )
        )


class _FollowedStream(AsyncIterator[Any]):
    def __init__(self, pieces: AsyncIterator[Any], call: _FollowedCall) -> None:
        self._pieces = pieces
        self._call = call

    async def __anext__(self) -> Any:
        with EnteredContext(self._call.context):  # what the provider calls for a piece is a part of this call
            try:
                piece = await self._pieces.__anext__()
            except StopAsyncIteration:
                self._call.end()
                raise
            except BaseException as raised:
                self._call.end(raised)
                raise
        self._call.count_piece(piece)
        return piece

    async def aclose(self) -> None:
        try:
            await close(self._pieces)
        finally:
            self._call.end(closed=True)
