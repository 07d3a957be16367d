"""Checks of concurrent calls of every kind: they overlap, share connections, and can be cancelled at any point."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from llamastack.provider.context import use_provider_data
from llamastack.provider.errors import LlamaStackError
from llamastack_conformance.backend_tap import Request
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.gate import Gate
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.inference_kinds import Kind, KindChecks, primed
from llamastack_conformance.suites.inference_vectors import FEW_KNOWN_AS, FEW_TEXTS
from llamastack_conformance.suites.inference_ways import ANSWERS
from llamastack_conformance.watching import becomes, watched_loop

_AT_ONCE = 8
_MEET_WITHIN_S = 1.0
_CALLS = 200
_LISTED_BY_S = 1.0
_LOOKS = 3
_CLOSED_BY_S = 5.0
_POINTS = (0, 1, 3, 8, 21)


class OverlapChecks(KindChecks):
    """The checks of concurrent and cancelled calls of every kind."""

    @check("stress.overlap", tier=Tier.stress, mend="hold no lock while the backend works, and use an async client")
    async def test_stress_overlap(self, subject: Subject) -> None:
        """of eight calls at once of every kind, four or more wait for the backend at the same time"""
        async with subject.shared(tapped=True) as running:
            for kind in await self.kinds(running):
                gate = Gate(_AT_ONCE // 2, _MEET_WITHIN_S)
                await primed(running, kind, gate=gate)
                await _at_once(kind.make, _AT_ONCE)
                if not gate.is_met:
                    raise CheckFailure(f"{kind.name}: at most {gate.most} of {_AT_ONCE} at a time")

    @check("stress.connections", tier=Tier.stress, mend="make one client for all calls, and read answers to their end")
    async def test_stress_connections(self, subject: Subject) -> None:
        """two hundred calls use few connections to the backend, which are kept and used again"""
        async with subject.shared(tapped=True) as running:
            kinds = await self.kinds(running)
            for kind in kinds:
                await primed(running, kind)
                calls, made = -(-_CALLS // len(kinds)), 0
                for _ in range(_LOOKS):  # a backend closes connections that idle, as on a busy machine
                    before = running.tap.connections
                    for _ in range(-(-calls // _AT_ONCE)):
                        await _at_once(kind.make, _AT_ONCE)
                    made = running.tap.connections - before
                    if made <= 2 * _AT_ONCE:
                        break
                else:
                    raise CheckFailure(f"{kind.name}: {made} connections for {calls} calls, {_AT_ONCE} at a time")

    @check("stress.listing", tier=Tier.stress, mend="list in one request, and without waiting for calls")
    async def test_stress_listing(self, subject: Subject) -> None:
        """a listing takes less than a second, also while calls are made"""
        async with subject.shared() as running:
            kinds = await self.kinds(running)
            took = []
            async with anyio.create_task_group() as group:
                for kind in kinds[:2]:
                    group.start_soon(kind.make, "Say hello.")
                for _ in range(_LOOKS):
                    began = time.monotonic()
                    await running.list_objects()
                    took.append(time.monotonic() - began)
        if min(took) > _LISTED_BY_S:
            raise CheckFailure(f"the fastest of {_LOOKS} took {min(took):.2f} s")

    @check(
        "stress.each-method",
        tier=Tier.stress,
        mend="use an async client, or anyio.to_thread.run_sync for blocking code, in every method",
    )
    async def test_stress_each_method(self, subject: Subject) -> None:
        """no method blocks the event loop for 100 ms: listing, whole calls, streams, twenty texts to embed"""
        tapped = subject.backend_url is not None
        async with subject.shared(tapped=tapped) as running:
            if subject.declares("embeddings"):
                embed = partial(self._embed, running, FEW_TEXTS)
                await _watch(running, f"embeddings of {len(FEW_TEXTS)} texts", embed, FEW_KNOWN_AS if tapped else "")
            for kind in await self.kinds(running):
                await _watch(running, kind.name, partial(kind.make, "Say hello."), kind.known_as if tapped else "")
            await _watch(running, "the listing", running.list_objects, "listing" if tapped else "")

    @check(
        "failure.cancelled-anywhere",
        tier=Tier.failure,
        mend="use `async with` for connections and streams, and catch no cancellation",
    )
    async def test_failure_cancelled_anywhere(self, subject: Subject) -> None:
        """a call of any kind can be cancelled at many points; its connection is closed then, and calls work on"""
        async with subject.start(tapped=True) as running:
            kinds = await self.kinds(running)
            for kind in kinds:
                running.tap.disturb(hangs=True)
                for point in _POINTS:
                    await _cancelled(kind, _steps(point))
                held = running.tap.holding
                await _cancelled(kind, becomes(lambda held=held: running.tap.holding > held, _CLOSED_BY_S))  # type: ignore[misc]
                if not await becomes(lambda: not running.tap.open_held, _CLOSED_BY_S):
                    raise CheckFailure(f"{kind.name}: {running.tap.open_held} connections of cancelled calls stay open")
            for kind in kinds:
                await primed(running, kind)
                await kind.make("Say hello.")

    @check(
        "stress.client-keys",
        tier=Tier.stress,
        mend="read `deps.request_data()` inside each call and each stream, and keep none of it",
    )
    async def test_stress_client_keys(self, subject: Subject) -> None:
        """in every kind of call, each request that a call makes has the key of its client and no other key;
        afterwards a call without a key of a client has none
        """
        if subject.client_data("") is None:
            raise NotApplicable("the provider takes no keys of clients")
        async with subject.shared(tapped=True) as running:
            for kind in await self.kinds(running):
                await primed(running, kind, gate=Gate(_AT_ONCE, _MEET_WITHIN_S))
                keys = [f"conformance-key-of-client-{number:03d}" for number in range(_AT_ONCE)]
                running.tap.requests.clear()
                async with anyio.create_task_group() as group:
                    for key in keys:
                        group.start_soon(_with_key, kind, f"Say qz{key}.", subject.client_data(key))
                _check_keys(kind.name, running.tap.requests, keys)
                running.tap.requests.clear()
                await kind.make("Say hello.")
                if any(_keys_of(request, keys) for request in running.tap.requests):
                    raise CheckFailure(f"{kind.name}: a call without a key of a client is sent with one")


async def _watch(running: Running, name: str, make: Callable[[], Awaitable[Any]], known_as: str) -> None:
    """Raise CheckFailure if each of several calls blocks the event loop.

    known_as: of the backend's answer, by which the tap answers all calls but the first; empty without a tap.
    """
    if known_as:
        await ANSWERS.prime(running.subject, running.tap, known_as, make)
    else:
        await make()
    limit_s = running.subject.settings.max_block_ms / 1000
    for _ in range(_LOOKS):  # a busy machine blocks only now and then
        with watched_loop() as watch:
            await make()
        if watch.longest_s <= limit_s:
            return
    raise CheckFailure(f"{name}: the event loop was blocked for {watch.longest_s * 1000:.0f} ms, at\n{watch.stack}")


async def _at_once(make: Callable[[str], Coroutine[Any, Any, Any]], count: int) -> None:
    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(make, f"Say hello to number {number}.")


async def _steps(count: int) -> None:
    for _ in range(count):
        await checkpoint()


async def _cancelled(kind: Kind, point: Awaitable[Any]) -> None:
    """Begin a call, and cancel it at a point."""
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:

            async def call() -> None:
                try:
                    await kind.make("Say hello.")
                except LlamaStackError as error:
                    raise CheckFailure(f"{kind.name}, cancelled: {type(error).__name__}: {error.message}") from None
                raise CheckFailure(f"{kind.name}: it ended before the backend had answered")

            group.start_soon(call)
            await point
            scope.cancel()


async def _with_key(kind: Kind, text: str, data: Any) -> None:
    with use_provider_data(data):
        await kind.make(text)


def _keys_of(request: Request, keys: Sequence[str]) -> set[str]:
    head = request.head.decode("latin-1")
    return {key for key in keys if key in head}


def _check_keys(what: str, requests: Sequence[Request], keys: Sequence[str]) -> None:
    """Raise CheckFailure unless each key arrives, and each request of a call has the key of the call alone.

    A call may make several requests, and one may be sent again on a new connection. The text of a call holds its key. A
    body without such a text has one key, which may be any.
    """
    arrived: dict[str, int] = dict.fromkeys(keys, 0)
    unmarked = False
    for request in requests:
        found, said = _keys_of(request, keys), {key for key in keys if f"qz{key}".encode() in request.body}
        unmarked |= bool(request.body) and not said
        if (said and found != said) or (request.body and len(found) != 1):
            raise CheckFailure(
                f"{what}: a request of the call with {sorted(said)} has {sorted(found)}", wanted="its key"
            )
        for key in found:
            arrived[key] += 1
    if not all(arrived.values()) or (unmarked and len(set(arrived.values())) > 1):
        raise CheckFailure(f"{what}: how often each key arrived: {arrived}", wanted="each key, equally often")
