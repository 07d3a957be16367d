"""Reports every call of a provider to plugins: when it starts, and how it ended."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

from llamastack.provider.context import EnteredCall, context_and_call, enter_call, leave_call
from llamastack.provider.errors import LlamaStackError
from llamastack.provider.provider_call import CallEvent, ProviderCall, ReadTokens, Tokens
from llamastack.provider.streams import close, pieces_in, with_pieces
from llamastack.stack.hook_calls import BeginSpan

_Listener = Callable[[CallEvent], object]
_PROCESS = f"{random.getrandbits(48):012x}-"
"""Ids of several workers differ by this."""
_numbers = itertools.count(1)
_NO_TOKENS: Tokens = (None, None)
_About = tuple[str, str | None, str, str, str, str, str, str | None, str | None, str | None, ProviderCall]
"""The fields that both events have."""


class CallEvents:
    """started, finished: call the plugins that listen. begin_span: asks the plugins for a span."""

    def __init__(self, started: _Listener | None, finished: _Listener | None, begin_span: BeginSpan | None) -> None:
        self._begin_span = begin_span
        self._started = started
        self._finished = finished

    async def around(self, call: ProviderCall, provider_type: str, made: Awaitable[Any]) -> Any:
        """Await `made`, and report it."""
        context, parent = context_and_call()
        call_id = f"{_PROCESS}{next(_numbers):x}"
        above = context.traceparent
        span = None if self._begin_span is None else self._begin_span(above, call.api)
        if span is not None:
            context = context.in_span(span)
        ids = (call.api, call.method, call.identifier, call.provider_id, provider_type, context.request_id)
        about = (call_id, parent, *ids, span, above, call)
        if self._started is not None:
            self._started(CallEvent(*about))
        began = time.perf_counter()
        entered = enter_call(context, call_id)
        try:
            reply = await made
        except BaseException as raised:
            self.end(about, began, raised)
            raise
        finally:
            leave_call(entered)
        if not isinstance(reply, bytes) and pieces_in(reply):  # perf: the usual reply is bytes
            end, enter = partial(self.end, about, began), partial(enter_call, context, call_id)
            tokens = call.by.tokens
            return with_pieces(reply, lambda pieces: _FollowedStream(pieces, tokens, end, began, enter))
        self.end(about, began, tokens=call.by.tokens(reply) or _NO_TOKENS)
        return reply

    def end(
        self,
        about: _About,
        began: float,
        raised: BaseException | None = None,
        *,
        closed: bool = False,
        first_piece_s: float | None = None,
        tokens: Tokens = _NO_TOKENS,
    ) -> None:
        """Report how a call ended. closed: by the reader of a stream, before its end."""
        if self._finished is None:
            return
        cancelled = closed or not (raised is None or isinstance(raised, Exception))
        status = "cancelled" if cancelled else "ok" if raised is None else "error"
        code, message = (raised.code, raised.message) if isinstance(raised, LlamaStackError) else (None, None)
        took = time.perf_counter() - began
        self._finished(CallEvent(*about, status, code, message, took, first_piece_s, *tokens))


class _FollowedStream(AsyncIterator[Any]):
    """The pieces of a call. end: reports how it ended. enter: makes the call the current one."""

    def __init__(
        self,
        pieces: AsyncIterator[Any],
        tokens: ReadTokens,
        end: Callable[..., None],
        began: float,
        enter: Callable[[], EnteredCall],
    ) -> None:
        self._pieces = pieces
        self._tokens_in = tokens
        self._tell_end: Callable[..., None] | None = end
        self._began = began
        self._enter = enter
        self._first: float | None = None
        self._tokens = _NO_TOKENS

    def _end(self, raised: BaseException | None = None, *, closed: bool = False) -> None:
        tell, self._tell_end = self._tell_end, None
        if tell is not None:
            tell(raised, closed=closed, first_piece_s=self._first, tokens=self._tokens)

    async def __anext__(self) -> Any:
        entered = self._enter()  # what the provider calls for a piece is a part of this call
        try:
            piece = await self._pieces.__anext__()
        except StopAsyncIteration:
            self._end()
            raise
        except BaseException as raised:
            self._end(raised)
            raise
        finally:
            leave_call(entered)
        if self._first is None:
            self._first = time.perf_counter() - self._began
        self._tokens = self._tokens_in(piece) or self._tokens
        return piece

    async def aclose(self) -> None:
        try:
            await close(self._pieces)
        finally:
            self._end(closed=True)
