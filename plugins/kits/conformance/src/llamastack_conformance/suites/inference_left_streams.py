"""Checks of streams that are refused, or are left by their caller."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

from llamastack.api.common import UserMessage
from llamastack.provider.errors import RateLimitError
from llamastack.provider.streams import closing
from llamastack_adapters.chat_request import ChatRequest
from llamastack_conformance.backend_tap import always, answer
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.replaying import replayed
from llamastack_conformance.running import Running
from llamastack_conformance.suites.inference_calls import COUNT, LONG, read
from llamastack_conformance.suites.inference_kinds import KindChecks
from llamastack_conformance.watching import becomes

_LEFT_BY_S = 3.0
_ERROR = json.dumps({"error": {"message": "no luck", "type": "error", "code": None}, "message": "no luck"})


class LeftStreamChecks(KindChecks):
    """The checks of streams that are not read to their end."""

    def _streams(self, running: Running, model: str) -> Iterator[tuple[str, Callable[[], Awaitable[Any]]]]:
        """(name, call) of every kind of stream. The call returns None if the provider does not take it in this way."""
        if running.subject.declares("chat_completion"):
            request = ChatRequest(model, [UserMessage(content=COUNT)], LONG)
            for way in self.ways(running):
                if way.streamed:
                    yield way.name, partial(way.ask, running, request)
        if running.subject.declares("completion"):
            yield "completion, streamed", partial(self._complete, running, stream=True, sampling_params=LONG)

    @check(
        "failure.before-pieces",
        tier=Tier.failure,
        capability="streaming",
        mend="call the backend, and read its status, before the first piece",
    )
    async def test_failure_before_pieces(self, subject: Subject) -> None:
        """every kind of stream that the backend refuses is an error before any piece, so that clients get the status"""
        async with subject.shared(tapped=True) as running:
            running.tap.disturb(inject=always(answer(429, _ERROR, retry_after="3600")))
            for name, ask in self._streams(running, await self._model(running)):
                try:
                    stream = await ask()
                    if stream is None:
                        continue
                    async with closing(stream) as pieces:
                        first = await anext(pieces, None)
                except RateLimitError:
                    continue
                raise CheckFailure(f"{name}: the first piece of a refused stream: {first!r:.300}", wanted="an error")

    @check(
        "failure.left-stream",
        tier=Tier.failure,
        capability="streaming",
        mend="return an async generator, or a `streams.Stream` with `on_close`, that closes the backend's stream",
    )
    async def test_failure_left_stream(self, subject: Subject) -> None:
        """when a caller closes a stream of any kind after its first piece, the backend's connection is closed"""
        held = 0
        async with subject.shared(tapped=True) as running:
            for name, ask in self._streams(running, await self._model(running)):
                running.tap.clear()
                stream = await ask()
                if stream is None:
                    continue
                await read(stream)
                running.tap.disturb(inject=await replayed(running.tap), holds=True)
                async with closing(await ask()) as pieces:
                    await anext(pieces)
                    is_held = await becomes(lambda: running.tap.open_held > 0, _LEFT_BY_S)
                held += is_held
                if not await becomes(lambda: running.tap.open_held == 0, _LEFT_BY_S):
                    raise CheckFailure(f"{name}: the connection is open {_LEFT_BY_S:g} s after the stream was closed")
        if not held:
            raise NotApplicable("the backend's answer is not held back while its first piece is read")
