"""Reports every call of a provider to plugins: when it starts, and how it ended."""

from __future__ import annotations

import itertools
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, NoReturn

from llamastack.provider.context import EnteredCall, RequestContext, context_and_call, enter_call, leave_call
from llamastack.provider.errors import LlamaStackError, raise_translated
from llamastack.provider.provider_call import CallEvent, ProviderCall, ProviderMethod, Tokens
from llamastack.provider.streams import Stream, closing, pieces_in, with_pieces
from llamastack.stack.hook_calls import BeginSpan
from llamastack.stack.supervisor import SupervisedProvider

_Listener = Callable[[CallEvent], object]
_PROCESS = f"{random.getrandbits(48):012x}-"
"""Ids of several workers differ by this."""
_numbers = itertools.count(1)
_NO_TOKENS: Tokens = (None, None)
_MAY_HAVE_TOKENS = 4
"""How many of the last pieces of a stream are searched: backends report tokens at the end."""
_ABOVE = CallEvent._fields.index("parent_span")
_About = tuple[str, str | None, str, str, str, str, str, str | None, str | None, str | None, ProviderCall]
"""The fields that both events have."""


class CallEvents:
    """started, finished: call the plugins that listen. begin_span: asks the plugins for a span."""

    def __init__(self, started: _Listener | None, finished: _Listener | None, begin_span: BeginSpan | None) -> None:
        self._begin_span = begin_span
        self._started = started
        self._finished = finished

    async def around(self, call: ProviderCall, instance: SupervisedProvider, provider: object) -> Any:
        """Call the provider, and report it."""
        context, parent = context_and_call()
        call_id = f"{_PROCESS}{next(_numbers):x}"
        above = context.traceparent
        span = None if self._begin_span is None else self._begin_span(above, call.api)
        if span is not None:
            context = context.in_span(span)
        about: _About = (
            call_id,
            parent,
            call.api,
            call.method,
            call.identifier,
            call.provider_id,
            instance.provider_type,
            context.request_id,
            span,
            above,
            call,
        )
        if self._started is not None:
            self._started(CallEvent(*about))
        began = time.perf_counter()
        entered = enter_call(context, call_id)
        try:
            reply = await instance.reply(provider, call)
        except BaseException as raised:
            self.end(about, began, raised)
            raise
        finally:
            leave_call(entered)
        if not isinstance(reply, bytes) and pieces_in(reply):  # perf: the usual reply is bytes
            return self._follow(reply, about, instance, context, began)
        if self._finished is not None:
            took = time.perf_counter() - began
            tokens = call.by.tokens(reply) or _NO_TOKENS
            self._finished(CallEvent(*about, "ok", None, None, took, None, reply, *tokens))
        return reply

    def _follow(
        self, reply: object, about: _About, instance: SupervisedProvider, context: RequestContext, began: float
    ) -> object:
        # perf: llamastack-v1-metrics. Only pieces of a provider that makes calls are read inside of the call.
        is_inside = bool(instance.plan.dependencies) or about[_ABOVE] is None
        enter = partial(enter_call, context, about[0]) if is_inside else None
        end, by = partial(self.end, about, began), about[-1].by
        return with_pieces(reply, lambda pieces: _FollowedStream(pieces, instance, by, began, end, enter).stream())

    def end(
        self,
        about: _About,
        began: float,
        raised: BaseException | None = None,
        *,
        closed: bool = False,
        first_piece_s: float | None = None,
        tokens: Tokens = _NO_TOKENS,
        reply: object = None,
    ) -> None:
        """Report how a call ended. closed: by the reader of a stream, before its end."""
        if self._finished is None:
            return
        cancelled = closed or not (raised is None or isinstance(raised, Exception))
        status = "cancelled" if cancelled else "ok" if raised is None else "error"
        code, message = (raised.code, raised.message) if isinstance(raised, LlamaStackError) else (None, None)
        took = time.perf_counter() - began
        self._finished(CallEvent(*about, status, code, message, took, first_piece_s, reply, *tokens))


class _FollowedStream:
    """The pieces of a call, with its errors translated.

    end: reports how it ended. enter: makes the call the current one while a piece is read; None if nobody would see.
    """

    def __init__(
        self,
        pieces: AsyncIterator[Any],
        instance: SupervisedProvider,
        by: ProviderMethod,
        began: float,
        end: Callable[..., None],
        enter: Callable[[], EnteredCall] | None,
    ) -> None:
        self._pieces = pieces
        self._instance = instance
        self._by = by
        self._began = began
        self._tell_end: Callable[..., None] | None = end
        self._enter = enter
        self._first: float | None = None
        # perf: llamastack-v1-metrics. Looking for tokens in each piece takes as long as all else that is done with it.
        self._last: deque[object] = deque(maxlen=_MAY_HAVE_TOKENS)

    def stream(self) -> Stream[Any]:
        """The pieces, to be closed."""
        return Stream(self._followed(), self._close)

    async def _followed(self) -> AsyncIterator[Any]:
        source = self._pieces if self._enter is None else self._read_inside(self._enter)
        keep = self._last.append
        try:
            # perf: llamastack-v1-metrics. A second iterator around that of the provider takes 3 us a piece.
            async with closing(self._pieces):
                first = True
                async for piece in source:
                    if first and not self._by.announces(piece):
                        self._first, first = time.perf_counter() - self._began, False
                    keep(piece)
                    yield piece
        except BaseException as raised:
            self._failed(raised)
        self._end()

    def _failed(self, raised: BaseException) -> NoReturn:
        try:
            translated = self._instance.failed(raised)
        except BaseException:
            self._end(raised, closed=isinstance(raised, GeneratorExit))
            raise
        self._end(translated)
        raise_translated(raised, translated)

    async def _read_inside(self, enter: Callable[[], EnteredCall]) -> AsyncIterator[Any]:
        """What the provider calls for a piece is a part of this call."""
        end = object()
        while True:
            entered = enter()
            try:
                piece = await anext(self._pieces, end)
            finally:
                leave_call(entered)
            if piece is end:
                return
            yield piece

    def __del__(self) -> None:
        """It was dropped. Python closes an async generator that nobody holds, but not one that never started."""
        self._end(closed=True)

    async def _close(self) -> None:
        try:
            await self._instance.close(self._pieces)
        finally:
            self._end(closed=True)

    def _end(self, raised: BaseException | None = None, *, closed: bool = False) -> None:
        tell, self._tell_end = self._tell_end, None
        if tell is not None:
            found = (tokens for piece in reversed(self._last) if (tokens := self._by.tokens(piece)))
            last = tuple(self._last)
            tell(raised, closed=closed, first_piece_s=self._first, tokens=next(found, _NO_TOKENS), reply=last)
            self._last.clear()
