"""Checks of what a provider keeps of many calls and of long answers: tasks, threads, files and memory have an end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from llamastack.provider.errors import BackendError, ProviderUnavailableError
from llamastack.provider.streams import closing
from llamastack_conformance.backend_tap import Request, Tap
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.replaying import KnownAnswers, completed, is_text, reframed, target_of
from llamastack_conformance.running import Running
from llamastack_conformance.suites.failure import expect_error
from llamastack_conformance.suites.registration import RegistrationChecks
from llamastack_conformance.suites.suite import Suite
from llamastack_conformance.watching import Holdings, becomes

_CALLS = 4
_LET_GO_BY_S = 3.0
_LIMIT_BYTES = 256 * 1024
_ANSWERS = KnownAnswers()
Make = Callable[[], Awaitable[Any]]
"""A call that can be repeated, and reads its result to the end."""
_Answers = Callable[[Request], Any]


class LimitChecks(Suite):
    """Checks of every provider."""

    async def each_kind(self, running: Running) -> list[tuple[str, Make]]:
        """(name, call) of the kinds of calls, each of which reads its result to the end and can be repeated."""
        found: list[tuple[str, Make]] = [("a call", partial(self.call, running))]
        try:
            async with closing(await self.stream(running)):
                found.append(("a stream", partial(self._read_stream, running)))
        except NotApplicable:
            pass
        return found

    async def _read_stream(self, running: Running) -> None:
        async with closing(await self.stream(running)) as pieces:
            async for _ in pieces:
                pass

    async def answers_of(self, subject: Subject, tap: Tap, name: str, make: Make) -> _Answers | None:
        """Make a call, and return how the tap answers it again."""
        await _ANSWERS.prime(subject, tap, name, make)
        return tap.inject

    @asynccontextmanager
    async def _started(self, subject: Subject) -> AsyncIterator[Running]:
        if subject.backend_url is None:
            async with subject.shared() as running:
                yield running
        else:
            async with subject.start(tapped=True) as running:
                yield running

    @check(
        "stress.leaves-nothing",
        tier=Tier.stress,
        mend="end in each call what the call has started, also when it fails; close files and streams in `async with`",
    )
    async def test_stress_leaves_nothing(self, subject: Subject) -> None:
        """many calls of any kind leave no tasks, threads or files open behind them"""
        async with self._started(subject) as running:
            await self.prepare(running)
            kinds = await self.each_kind(running)
            answers: dict[str, _Answers | None] = {}
            for name, make in kinds:  # what is made once and kept is no leak
                if running.is_tapped:
                    answers[name] = await self.answers_of(subject, running.tap, name, make)
                else:
                    await make()
            for name, make in kinds:
                if running.is_tapped:
                    running.tap.disturb(inject=answers[name])
                before = Holdings.now()
                for _ in range(_CALLS):
                    await make()
                # Sockets do not count: a provider keeps connections, and the tap has its own.
                await becomes(lambda before=before: len(_left(before)) < _CALLS, _LET_GO_BY_S)  # type: ignore[misc]
                left = _left(before)
                if len(left) >= _CALLS:
                    raise CheckFailure(f"{name}: after {_CALLS} calls there are {len(left)} more: {', '.join(left)}")

    @check(
        "failure.long-answer",
        tier=Tier.failure,
        mend="stop reading at `max_response_bytes`, and in a stream at `max_event_bytes` of one event",
    )
    async def test_failure_long_answer(self, subject: Subject) -> None:
        """an answer that is longer than `max_response_bytes` of the config, or has an event that is longer than
        `max_event_bytes`, is an error of the backend (502, 503): a call, a stream, a listing
        """
        limits = {"max_response_bytes", "max_event_bytes"} & subject.config_class.model_fields.keys()
        if "max_response_bytes" not in limits:
            raise NotApplicable("the config has no `max_response_bytes`")
        changes = dict.fromkeys(sorted(limits), _LIMIT_BYTES)
        async with subject.start(tapped=True, changes=changes) as running:
            await self.prepare(running)
            tap = running.tap
            for name, make in await self.each_kind(running):
                await _fails_if_long(running, name, make, await self.answers_of(subject, tap, name, make))
            if not isinstance(self, RegistrationChecks):
                return
            tap.clear()
            tap.exchanges.clear()
            await running.list_objects()
            listing = {target_of(one.request): await completed(one) for one in tap.exchanges}
            await _fails_if_long(running, "a listing", running.list_objects, lambda r: listing.get(target_of(r)))


async def _fails_if_long(running: Running, name: str, make: Make, answers: _Answers | None) -> None:
    """Raise CheckFailure if a call succeeds, or hides the failure, when the backend's answer is long."""
    padded = 0

    def inject(request: Request) -> bytes | None:
        nonlocal padded
        found = answers(request) if answers is not None else None
        if not isinstance(found, bytes) or not is_text(found):
            return None
        long = reframed(found, _padded)
        padded += len(long) > len(found)
        return long

    running.tap.disturb(inject=inject)
    try:
        await expect_error(running, make, BackendError, ProviderUnavailableError)
    except CheckFailure as failure:
        if padded:  # else the call asks the backend nothing, or it does not answer with JSON
            raise CheckFailure(f"{name}, whose answer is too long: {failure.got}", wanted=failure.wanted) from None


def _padded(body: bytes) -> bytes:
    """The same JSON with many blanks before its first value."""
    at = min((place for place in (body.find(b"{"), body.find(b"[")) if place >= 0), default=-1)
    return body if at < 0 else body[:at] + b" " * (4 * _LIMIT_BYTES) + body[at:]


def _left(before: Holdings) -> list[str]:
    return [text for text in Holdings.now().beyond(before) if not text.startswith("open socket:")]
