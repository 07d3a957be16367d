"""Checks of concurrent and cancelled calls of memory: a document is whole, old or new, whatever happens at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio

from llamastack.api.memory import MemoryBankDocument
from llamastack.provider.errors import ConflictError
from llamastack_conformance.checks import CheckFailure, Tier, check
from llamastack_conformance.gate import Gate
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.memory_calls import MemoryCalls
from llamastack_conformance.suites.memory_contents import check_contents, whole_version
from llamastack_conformance.suites.memory_own_bank import OwnBank, own_bank, require
from llamastack_conformance.suites.memory_texts import Ledger, batches, plain, uncovered, word
from llamastack_conformance.suites.registration import names
from llamastack_conformance.suspensions import followed, spread, suspensions
from llamastack_conformance.watching import becomes, watched_loop

_CHUNK_TOKENS = 32
_PARALLEL = 24
_RACES = 6
_CANCELLED = 24
_WORKS_AGAIN_BY_S = 10.0
_SETTLES_BY_S = 3.0
_LOOK_EVERY_S = 0.1
_AT_ONCE = 8
_MEET_WITHIN_S = 1.0
_CALLS = 100
_LARGE_TOKENS = 30_000
_LOOKS = 3


class ConcurrencyChecks(MemoryCalls):
    """The checks of calls at once."""

    @check(
        "insert_documents.at-once",
        tier=Tier.stress,
        capability="insert_documents",
        mend="replace a document in one transaction, or under a lock",
    )
    async def test_insert_documents_at_once(self, subject: Subject) -> None:
        """two inserts of one id at once leave one whole version; one of them may be refused with ConflictError (409)"""
        async with subject.shared() as running, own_bank(self, running, "race", _CHUNK_TOKENS) as bank:
            versions = _versions(bank)
            for place, point in enumerate(await _points(bank, versions[0], _RACES)):
                first, second = versions[place % 2 :] + versions[: place % 2]
                await _raced(_put(bank, first), point, lambda second=second: _put(bank, second))  # type: ignore[misc]
                if await whole_version(bank, "raced", versions) is None:
                    raise CheckFailure("after two inserts at once the document is gone")

    @check(
        "delete_documents.at-once",
        tier=Tier.stress,
        capability="delete_documents",
        mend="replace and delete a document in one transaction each, or under a lock",
    )
    async def test_delete_documents_at_once(self, subject: Subject) -> None:
        """an insert and a delete of one id at once leave the whole new version, or nothing"""
        async with subject.shared() as running, own_bank(self, running, "race", _CHUNK_TOKENS) as bank:
            old, new = _versions(bank)
            for point in await _points(bank, old, _RACES):
                await bank.put({"raced": old.text})
                await _raced(_put(bank, new), point, lambda: bank.delete("raced"))
                if await whole_version(bank, "raced", [old, new]) is old:
                    raise CheckFailure("after an insert and a delete at once the earlier version is still there")

    @check(
        "query_documents.during-insert",
        tier=Tier.stress,
        capability="query_documents",
        mend="show the new chunks and hide the old ones in one request; a query reads one state of the bank",
    )
    async def test_query_documents_during_insert(self, subject: Subject) -> None:
        """a query during an insert finds the whole earlier version of a document, or the whole new one; it is no error,
        no mixture, and never finds nothing
        """
        async with subject.shared() as running, own_bank(self, running, "read", _CHUNK_TOKENS) as bank:
            versions = _versions(bank)
            await bank.put({"raced": versions[1].text})
            # A query for a word that is in every line: one query finds every chunk.
            for point in await _points(bank, versions[0], _RACES):
                await bank.put({"raced": versions[1].text})
                await _raced(_put(bank, versions[0]), point, lambda: _one_version(bank, versions))

    @check(
        "insert_documents.parallel",
        tier=Tier.stress,
        capability="insert_documents",
        mend="write only the documents of the call, and no state of the bank that other calls write, too",
    )
    async def test_insert_documents_parallel(self, subject: Subject) -> None:
        """of 24 inserts into one bank at once every document is found"""
        texts = {f"parallel-{n}": f"The mark {word(n)} is here." for n in range(2 * _PARALLEL)}
        async with subject.shared() as running, own_bank(self, running, "parallel") as bank:
            async with anyio.create_task_group() as group:
                for n in range(_PARALLEL):
                    mine = (f"parallel-{2 * n}", f"parallel-{2 * n + 1}")
                    group.start_soon(bank.put, {name: texts[name] for name in mine})
            got: dict[str, set[str]] = {}
            for query in batches([word(n) for n in range(len(texts))]):
                for chunk in await bank.chunks(query):
                    got.setdefault(chunk.document_id, set()).add(plain(str(chunk.content)))
        check_contents(texts, got)

    @check(
        "registration.at-once",
        tier=Tier.stress,
        capability="registration",
        mend="let register_* add to what is there, and find what another call has made meanwhile",
    )
    async def test_registration_at_once(self, subject: Subject) -> None:
        """of eight banks that are registered at once, one of them four times, each is listed once"""
        require(subject, "unregister")
        async with subject.shared() as running:
            banks = [self.bank(running, f"-at-once-{number}") for number in range(_AT_ONCE)]
            async with anyio.create_task_group() as group:
                for bank in (*banks, *banks[:1] * 3):
                    group.start_soon(running.register_directly, bank)
            listed = await names(running)
            for bank in banks:
                await running.register(bank)
                await running.unregister(bank.identifier)
        wrong = [bank.identifier for bank in banks if listed.count(bank.identifier) != 1]
        if wrong:
            raise CheckFailure(f"{wrong} are not listed once")

    @check(
        "insert_documents.cancelled",
        tier=Tier.failure,
        capability="insert_documents",
        mend="write in one transaction, undo what is half written, and release locks in `finally` or `async with`",
    )
    async def test_insert_documents_cancelled(self, subject: Subject) -> None:
        """an insert that is cancelled, at whatever point, leaves the whole earlier version or the whole new one, and
        the next insert works
        """
        async with _tapped_if_possible(subject) as running, own_bank(self, running, "cancel", _CHUNK_TOKENS) as bank:
            versions = _versions(bank)
            await bank.put({"raced": versions[0].text})
            requests = await _requests(bank, versions[1])
            points = await _points(bank, versions[1], _CANCELLED)
            waits = [partial(_cancelled, point=point) for point in points]
            waits += [partial(_cancelled_at_request, running, number) for number in range(1, requests + 1)]
            for place, cancelled in enumerate(waits):
                await cancelled(bank.put({"raced": versions[place % 2].text}))
                if await _settled_version(bank, versions) is None:
                    raise CheckFailure(f"after a cancelled insert ({place} of {len(waits)}) the document is gone")
            with anyio.move_on_after(_WORKS_AGAIN_BY_S) as scope:
                await bank.put({"raced": versions[0].text})
                await bank.delete("raced")
            if scope.cancelled_caught:
                raise CheckFailure(f"after cancelled inserts another one takes more than {_WORKS_AGAIN_BY_S:g} s")
            if await whole_version(bank, "raced", versions) is not None:
                raise CheckFailure("after cancelled inserts a deleted document is still found")

    @check("stress.overlap", tier=Tier.stress, mend="hold no lock while the backend works, and use an async client")
    async def test_stress_overlap(self, subject: Subject) -> None:
        """of eight queries at once, four or more wait for the backend at the same time"""
        async with subject.start(tapped=True) as running:
            await self.prepare(running)
            gate = Gate(_AT_ONCE // 2, _MEET_WITHIN_S)
            running.tap.disturb(gate=gate)
            await self._queries(running)
            if not gate.is_met:
                raise CheckFailure(f"at most {gate.most} of {_AT_ONCE} at a time")

    @check("stress.connections", tier=Tier.stress, mend="make one client for all calls, and read answers to their end")
    async def test_stress_connections(self, subject: Subject) -> None:
        """a hundred queries use few connections to the backend, which are kept and used again"""
        async with subject.start(tapped=True) as running:
            await self.prepare(running)
            before = running.tap.connections
            for _ in range(_CALLS // _AT_ONCE):
                await self._queries(running)
            made = running.tap.connections - before
        if made > 2 * _AT_ONCE:
            raise CheckFailure(f"{made} connections for {_CALLS} calls, {_AT_ONCE} at a time")

    async def _queries(self, running: Running) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(_AT_ONCE):
                group.start_soon(self.query, running)

    @check(
        "stress.each-method",
        tier=Tier.stress,
        mend="use an async client, or anyio.to_thread.run_sync for blocking code, in every method",
    )
    async def test_stress_each_method(self, subject: Subject) -> None:
        """no method blocks the event loop for 100 ms: inserts and deletions of a large document, a query for 1000
        chunks, registering, listing
        """
        limit_s = subject.settings.max_block_ms / 1000
        async with subject.shared() as running, own_bank(self, running, "large", 256) as bank:
            large = MemoryBankDocument(document_id="large", content=Ledger("a large ledger", _LARGE_TOKENS, 0).text)
            work: dict[str, Callable[[], Awaitable[Any]]] = {
                "insert_documents": lambda: bank.insert(large),
                "query_documents": lambda: bank.chunks("ledger"),
                "the listing": running.list_objects,
            }
            if subject.declares("registration"):
                work["registering"] = lambda: running.register(bank.definition)
            if subject.declares("delete_documents"):
                work["delete_documents"] = lambda: bank.delete("large")
            for name, make in work.items():
                for _ in range(_LOOKS):  # a busy machine blocks only now and then
                    with watched_loop() as watch:
                        await make()
                    if watch.longest_s <= limit_s:
                        break
                else:
                    blocked = watch.longest_s * 1000
                    raise CheckFailure(f"{name}: the event loop was blocked for {blocked:.0f} ms, at\n{watch.stack}")


def _versions(bank: OwnBank) -> list[Ledger]:
    """Two versions of a document, of different length."""
    tokens = _CHUNK_TOKENS if bank.is_vector else 200
    return [Ledger("the first version", 12 * tokens, 0), Ledger("the second version", 7 * tokens, 500_000)]


async def _one_version(bank: OwnBank, versions: list[Ledger]) -> None:
    """Query until several queries have found a whole version. Raises CheckFailure for anything else."""
    for _ in range(_LOOKS):
        found = dict.fromkeys(await bank.texts("nobody written today", "raced"))
        if not found:
            raise CheckFailure("a query during an insert finds nothing of a document that was there")
        if not any(_covers(version, found) for version in versions):
            raise CheckFailure(f"a query during an insert finds {len(found)} chunks, which are not one whole version")


def _covers(version: Ledger, found: dict[str, None]) -> bool:
    try:
        return not uncovered(version.text, found)
    except ValueError:  # a chunk of another version
        return False


async def _put(bank: OwnBank, version: Ledger) -> None:
    try:
        await bank.put({"raced": version.text})
    except ConflictError:
        return  # a backend may refuse the second of two writers


async def _points(bank: OwnBank, version: Ledger, most: int) -> list[int]:
    """Some of the points at which an insert waits, by their number."""
    return spread(await suspensions(bank.put({"raced": version.text})), most)


async def _raced(first: Coroutine[Any, Any, None], point: int, second: Callable[[], Awaitable[None]]) -> None:
    """Make both calls at once. point: the second begins when the first waits for the time of this number."""
    reached = anyio.Event()

    async def call() -> None:
        await followed(first, lambda count: reached.set() if count == point else None)
        reached.set()

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await reached.wait()
        await second()


async def _cancelled(call: Coroutine[Any, Any, None], point: int) -> None:
    """Cancel a call when it waits for the time of this number."""
    with anyio.CancelScope() as scope:
        await followed(call, lambda count: scope.cancel() if count == point else None)


async def _cancelled_at_request(running: Running, number: int, call: Coroutine[Any, Any, None]) -> None:
    """Cancel a call when it has sent the request of this number."""
    seen = len(running.tap.requests)
    async with anyio.create_task_group() as group:
        group.start_soon(_awaited, call)
        await becomes(lambda: len(running.tap.requests) >= seen + number, _WORKS_AGAIN_BY_S)
        group.cancel_scope.cancel()


async def _awaited(call: Coroutine[Any, Any, None]) -> None:
    await call


async def _settled_version(bank: OwnBank, versions: list[Ledger]) -> Ledger | None:
    """As `whole_version` of `raced`, some time after a cancelled call.

    The backend may still carry out the request on which the call was cancelled, also between two of our queries.
    """
    deadline = anyio.current_time() + _SETTLES_BY_S
    while True:
        try:
            found = await whole_version(bank, "raced", versions)
        except CheckFailure:
            if anyio.current_time() > deadline:
                raise
        else:
            if found is not None or anyio.current_time() > deadline:
                return found
        await anyio.sleep(_LOOK_EVERY_S)


@asynccontextmanager
async def _tapped_if_possible(subject: Subject) -> AsyncIterator[Running]:
    if subject.backend_url is None:
        async with subject.shared() as running:
            yield running
    else:
        async with subject.start(tapped=True) as running:
            yield running


async def _requests(bank: OwnBank, version: Ledger) -> int:
    """How many requests to the backend an insert makes, as far as a tap sees them."""
    if not bank.running.is_tapped:
        return 0
    before = len(bank.running.tap.requests)
    await bank.put({"raced": version.text})
    return len(bank.running.tap.requests) - before
