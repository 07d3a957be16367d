"""Checks of streamed replies: their order, and that each piece arrives as soon as it is there."""

from __future__ import annotations

import time
from typing import Any

from llamastack.api.inference import (
    ChatCompletionResponseEventType,
    ChatCompletionResponseStreamChunk,
    CompletionResponseStreamChunk,
)
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.shapes import well_formed_piece
from llamastack_conformance.suites.inference_calls import (
    COUNT,
    LONG,
    InferenceCalls,
    read,
    text_of_piece,
    text_of_pieces,
)
from llamastack_conformance.suites.suite import refused

_FIRST_PIECE_BY = 0.8
_LEAST_TIME_S = 0.2


class StreamChecks(InferenceCalls):
    """The checks of streamed replies."""

    @check(
        "streaming.order",
        tier=Tier.live,
        capability="streaming",
        mend="yield one `start`, then `progress` with the text, then one `complete` with the stop_reason",
    )
    async def test_streaming_order(self, subject: Subject) -> None:
        """a stream is one start, progress with the text, and one complete; only complete has the stop_reason"""
        async with subject.shared() as running:
            pieces = await self._counted(running)
        name = "chat_completion" if subject.declares("chat_completion") else "completion"
        for piece in pieces:
            well_formed_piece(subject.method(name), piece)
        _stops_once(pieces)
        if not text_of_pieces(pieces).strip():
            raise CheckFailure("the pieces hold no text")
        if name == "chat_completion":
            _in_order(pieces)

    async def _counted(self, running: Running) -> Any:
        """The pieces of a stream."""
        if running.subject.declares("chat_completion"):
            return await self.known(running, self._chat, COUNT, sampling_params=LONG, stream=True)
        return await read(await self.stream(running))

    @check(
        "streaming.completion",
        tier=Tier.live,
        capability="streaming",
        mend="yield CompletionResponseStreamChunk: deltas, with the stop_reason only in the last one",
    )
    async def test_streaming_completion(self, subject: Subject) -> None:
        """a streamed text completion is pieces of text, and only the last one has the stop_reason"""
        if not subject.declares("completion"):
            raise NotApplicable("the provider declares no `completion`")
        async with subject.shared() as running:
            pieces = await self.known(running, self._complete, stream=True)
        for piece in pieces:
            well_formed_piece(subject.method("completion"), piece)
        _stops_once(pieces)
        if not text_of_pieces(pieces).strip():
            raise CheckFailure("the pieces hold no text")

    @check(
        "streaming.as-it-comes",
        tier=Tier.live,
        capability="streaming",
        mend="yield each piece when it comes from the backend; read the backend's stream as a stream",
    )
    async def test_streaming_as_it_comes(self, subject: Subject) -> None:
        """the first piece of text arrives before the last one is made"""
        if subject.backend_url is None:
            await self._in_time(subject)
            return
        async with subject.start(tapped=True) as running:
            running.tap.disturb(trickles=True)
            already, at_first = running.tap.handed_on, None
            async for piece in await self.stream(running):
                if at_first is None and text_of_piece(piece):
                    at_first = running.tap.handed_on - already
            total = running.tap.handed_on - already
        if at_first is None or at_first > total * _FIRST_PIECE_BY:
            raise CheckFailure(f"the first text came after {at_first} of the backend's {total} bytes")

    async def _in_time(self, subject: Subject) -> None:
        async with subject.shared() as running:
            began, first = time.monotonic(), None
            async for piece in await self.stream(running):
                if first is None and text_of_piece(piece):
                    first = time.monotonic() - began
            whole = time.monotonic() - began
        if first is None or (whole > _LEAST_TIME_S and first > whole * _FIRST_PIECE_BY):
            raise CheckFailure(f"the first text came after {first} of {whole:.2f} s")

    test_streaming_refused = refused("streaming")


def _stops_once(pieces: list[ChatCompletionResponseStreamChunk | CompletionResponseStreamChunk]) -> None:
    reasons = [
        (p.event if isinstance(p, ChatCompletionResponseStreamChunk) else p).stop_reason is not None for p in pieces
    ]
    if not reasons or sum(reasons) != 1 or not reasons[-1]:
        raise CheckFailure(
            f"of {len(reasons)} pieces, those with a stop_reason: {[i for i, has in enumerate(reasons) if has]}",
            wanted="a stop_reason only in the last piece",
        )


def _in_order(pieces: list[ChatCompletionResponseStreamChunk]) -> None:
    kinds = ChatCompletionResponseEventType
    found = [piece.event.event_type for piece in pieces]
    if found != [kinds.start, *[kinds.progress] * (len(found) - 2), kinds.complete]:
        raise CheckFailure(f"events {[str(kind) for kind in found[:3]]} ... {[str(kind) for kind in found[-3:]]}")
