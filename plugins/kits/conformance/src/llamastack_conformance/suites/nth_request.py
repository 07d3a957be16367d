"""Checks that break one request of many: no failure is swallowed, and nothing is left half done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from llamastack.provider.errors import LlamaStackError, NotFoundError
from llamastack.provider.streams import closing
from llamastack_conformance.breakage import Fault
from llamastack_conformance.checks import CheckFailure, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.registration import names, new_object
from llamastack_conformance.suites.suite import Suite
from llamastack_conformance.trials import READS, Trial, break_each_request

_QUESTION = 7


class NthRequestChecks(Suite):
    """Checks of every provider whose backend has a URL in its config."""

    async def plain_calls(self, running: Running) -> list[tuple[str, Callable[[], Awaitable[Any]]]]:
        """(name, call) of calls that read from the backend and can be repeated."""
        text = self.question(_QUESTION)
        await self.prepare_questions(running, [text])
        return [("a call", lambda: self.call(running, text))]

    def answered(self, result: Any) -> bool:
        """Whether `result` of a plain call can be the backend's own answer."""
        return self.answers(self.question(_QUESTION), result)

    @check(
        "nth-request.call",
        tier=Tier.failure,
        mend="let the error of every request through; return a result only when each part of it is there",
    )
    async def test_nth_request_call(self, subject: Subject) -> None:
        """if one request of a call fails, whichever it is, the call fails with an error of the backend or succeeds
        after another try; it never returns an empty, shorter or made-up result
        """
        async with subject.start(tapped=True) as running:
            await self.prepare(running)
            calls = await self.plain_calls(running)
            await break_each_request(
                running, *(Trial(name, call, good=self.answered, faults=READS, repeats=True) for name, call in calls)
            )

    @check(
        "nth-request.stream",
        tier=Tier.failure,
        mend="let the error of the request through, before the first piece or in its place",
    )
    async def test_nth_request_stream(self, subject: Subject) -> None:
        """if one request of a call with a stream fails, the stream fails; it is never an empty or made-up one"""
        async with subject.start(tapped=True) as running:
            await self.prepare(running)

            async def read() -> list[Any]:
                async with closing(await self.stream(running)) as pieces:
                    return [piece async for piece in pieces]

            await break_each_request(running, Trial("a stream", read, good=bool, faults=READS, repeats=True))


class NthRegistrationChecks(Suite):
    """Checks of providers whose API is routed by resources."""

    async def works_as_new(self, running: Running, item: Any) -> None:
        """Use an object that was just registered. Raises CheckFailure if it does not work."""

    @check(
        "nth-request.list",
        tier=Tier.failure,
        mend="list all or raise; never leave out what could not be read",
    )
    async def test_nth_request_list(self, subject: Subject) -> None:
        """if one request of a listing fails, the listing fails; it is never empty or shorter"""
        async with subject.start(tapped=True) as running:
            await self.prepare(running)
            whole = sorted(await names(running))
            await break_each_request(
                running,
                Trial(
                    "a listing",
                    lambda: names(running),
                    good=lambda found: sorted(found) == whole,
                    faults=(Fault.error, Fault.closed),
                ),
            )

    @check(
        "nth-request.register",
        tier=Tier.failure,
        capability="registration",
        mend="raise the error of the backend; let a second attempt find and complete what the first one left",
    )
    async def test_nth_request_register(self, subject: Subject) -> None:
        """if one request of a registration fails, it fails or is complete, and a second attempt succeeds"""
        item = new_object(subject)
        async with subject.start(tapped=True) as running:

            async def complete(failure: LlamaStackError | None) -> None:
                if failure is not None:
                    known = item.identifier in [other.identifier for other in await _known(running)]
                    if known and item.identifier not in await names(running):
                        raise CheckFailure(f"the stack knows '{item.identifier}', whose registration failed")
                    await running.register(item)
                if (found := await names(running)).count(item.identifier) != 1:
                    raise CheckFailure(f"'{item.identifier}' is registered, and the provider lists {found}")
                await self.works_as_new(running, item)
                await running.unregister(item.identifier)

            await break_each_request(running, Trial("register", lambda: running.register(item), after=complete))

    @check(
        "nth-request.unregister",
        tier=Tier.failure,
        capability="unregister",
        mend="raise the error of the backend; let a second attempt complete what the first one left",
    )
    async def test_nth_request_unregister(self, subject: Subject) -> None:
        """if one request of unregistering fails, it fails or is complete, and a second attempt succeeds"""
        item = new_object(subject)
        async with subject.start(tapped=True) as running:

            async def act() -> None:
                with suppress(NotFoundError):  # an earlier request removed it, and its answer was lost
                    await running.unregister_directly(item)

            async def gone(failure: LlamaStackError | None) -> None:
                if failure is not None:
                    await act()
                if item.identifier in (found := await names(running)):
                    raise CheckFailure(f"'{item.identifier}' was unregistered, and the provider lists {found}")
                await running.unregister(item.identifier)

            await break_each_request(
                running, Trial("unregister", act, before=lambda: running.register(item), after=gone)
            )


async def _known(running: Running) -> list[Any]:
    """What the stack lists."""
    listed = getattr(running.table, running.subject.pair.list_hook)
    return list(await listed())
