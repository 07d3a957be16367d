"""Checks of streams that are refused, or are left by their caller."""

from __future__ import annotations

import json

from llamastack.provider.errors import LlamaStackError
from llamastack.provider.streams import closing
from llamastack_conformance.backend_tap import always, answer
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.replaying import replayed
from llamastack_conformance.suites.inference_calls import read
from llamastack_conformance.suites.inference_kinds import KindChecks
from llamastack_conformance.watching import becomes

_LEFT_BY_S = 3.0
_ERROR = json.dumps({"error": {"message": "no luck", "type": "error", "code": None}, "message": "no luck"})


class LeftStreamChecks(KindChecks):
    """The checks of streams that are not read to their end."""

    @check(
        "failure.before-pieces",
        tier=Tier.failure,
        capability="streaming",
        mend="call the backend, and read its status, before the first piece",
    )
    async def test_failure_before_pieces(self, subject: Subject) -> None:
        """a stream that the backend refuses is an error before any piece, so that clients get the status"""
        async with subject.shared(tapped=True) as running:
            running.tap.disturb(inject=always(answer(429, _ERROR, retry_after="3600")))
            try:
                async with closing(await self.stream(running)) as pieces:
                    first = await anext(pieces, None)
            except LlamaStackError:
                return
            raise CheckFailure(f"the first piece of a refused stream: {first!r:.300}", wanted="an error")

    @check(
        "failure.left-stream",
        tier=Tier.failure,
        capability="streaming",
        mend="return an async generator, or a `streams.Stream` with `on_close`, that closes the backend's stream",
    )
    async def test_failure_left_stream(self, subject: Subject) -> None:
        """when a caller closes a stream after its first piece, the backend's connection is closed"""
        async with subject.shared(tapped=True) as running:
            await read(await self.stream(running))
            inject = await replayed(running.tap)
            running.tap.disturb(inject=inject, holds=True)
            async with closing(await self.stream(running)) as pieces:
                await anext(pieces)
                if not await becomes(lambda: running.tap.open_held > 0, _LEFT_BY_S):
                    raise NotApplicable("the backend's answer is not held back while its first piece is read")
            if not await becomes(lambda: running.tap.open_held == 0, _LEFT_BY_S):
                raise CheckFailure(f"the connection is still open {_LEFT_BY_S:g} s after the stream was closed")
