"""Checks that a store does not block the event loop, and of calls that are cancelled."""

from __future__ import annotations

import anyio
import anyio.lowlevel

from llamastack_conformance.checks import CheckFailure, Tier, check
from llamastack_conformance.store_under_test import StoreSubject
from llamastack_conformance.suites.store_suite import StoreSuite, expect, in_time, now_later, shown
from llamastack_conformance.watching import LoopWatch, watched_loop

_TASKS = 50
_CANCELLED = 60
_GOES_ON_S = 20.0
_VALUE = "x" * 100_000


class StressChecks(StoreSuite):
    """Checks of every store."""

    @check("loop.many-records", tier=Tier.stress, mend="read in a thread, or in steps with a checkpoint between them")
    async def test_loop_many_records(self, subject: StoreSubject) -> None:
        """changes_since gives 100,000 records, and the event loop goes on meanwhile"""
        kind, count = subject.new_kind(), subject.settings.store_records
        with subject.folder() as folder:
            async with subject.opened(folder, [kind]) as store:
                await self.fill(store, folder, kind, count)
                with watched_loop() as watch:
                    changes = await store.changes_since(0, [kind])
                _require_free(watch, subject)
                expect("the number of changes", len(changes.records), count)
                with watched_loop() as watch:
                    for after in ("", f"{count // 2:06}", f"{count - 50:06}"):
                        await store.scan(kind, after=after, limit=100)
                    later = await store.changes_since(changes.version, [kind])
                _require_free(watch, subject)
                expect("the changes since then", later.records, [])

    @check("loop.many-calls", tier=Tier.stress, mend="wait for disk and network in a thread, or with an async client")
    async def test_loop_many_calls(self, subject: StoreSubject) -> None:
        """fifty tasks that write and read at the same time lose nothing, and the event loop goes on meanwhile"""
        kind = subject.new_kind()
        async with subject.empty([kind]) as store:

            async def work(number: int) -> None:
                await store.put(kind, f"{number}", _VALUE)
                done = False
                while not done:
                    await anyio.lowlevel.checkpoint()  # or a store that never swaps blocks the check's time limit
                    known = await store.get(kind, "sum")
                    value = str(int((known and known.value) or "0") + 1)
                    done = await store.swap(kind, "sum", value, version=known.version if known else None) is not None

            with watched_loop() as watch:
                async with anyio.create_task_group() as tasks:
                    for number in range(_TASKS):
                        tasks.start_soon(work, number)
            _require_free(watch, subject)
            total = await store.get(kind, "sum")
            expect("the sum", total and total.value, str(_TASKS))

    @check("calls.cancelled", tier=Tier.stress, mend="end what has begun, even if its caller is cancelled")
    async def test_calls_cancelled(self, subject: StoreSubject) -> None:
        """a call that is cancelled leaves the old or the new record, and the store goes on"""
        kind = subject.new_kind()
        async with subject.empty([kind]) as store:
            known = await store.put(kind, "a", "0")
            for number in range(1, _CANCELLED):
                with anyio.move_on_after(number * 0.0001):
                    await store.put(kind, "a", f"{number}")
                found = await in_time(store.get(kind, "a"), _GOES_ON_S)
                if found is None or found.value not in (known.value, f"{number}"):
                    raise CheckFailure(f"get() gave {shown(found)} after a cancelled put()")
                # What is left of the cancelled call may still be on its way; this one comes after it.
                after = await in_time(store.put(kind, "a", f"after {number}"), _GOES_ON_S)
                known = now_later(after, found.version, "put()")
                expect("get()", await store.get(kind, "a"), known)


def _require_free(watch: LoopWatch, subject: StoreSubject) -> None:
    longest_ms = watch.longest_s * 1000
    if longest_ms > subject.settings.max_block_ms:
        raise CheckFailure(f"it was blocked for {longest_ms:.0f} ms, at\n{watch.stack}")
