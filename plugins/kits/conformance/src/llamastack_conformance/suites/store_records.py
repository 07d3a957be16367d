"""Checks of a store's records: keys, values, versions, compare-and-set, order, expiry."""

from __future__ import annotations

import time

import anyio

from llamastack.provider.store import Record, Store
from llamastack_conformance.checks import CheckFailure, Tier, check
from llamastack_conformance.store_under_test import StoreSubject
from llamastack_conformance.suites.store_model import StoreBesideDict
from llamastack_conformance.suites.store_suite import StoreSuite, expect, now_later

_SEEDS = range(6)
_STEPS = 120
_KEYS = [" ", "%", "*", "A", "[a]", "\\", "\0", "\n", "'", '"', "_", "a", "a ", "a/b", "a\0b", "a_b", "a%b", "a" * 1024]
_KEYS += ["e\u0301", "\u00e9", "\ufffd", "\uffff", "\U00010000", "\U0001f999", "NULL", "1", "01", "1.0", "ı", "ß", "ss"]
_VALUES = ["", " ", "\0", "a\0b", "\r\n", "null", "1", "\U0001f999", "'\"\\", "x" * 8 * 1024 * 1024]


class RecordChecks(StoreSuite):
    """Checks of every store."""

    @check(
        "records.as-a-dict",
        tier=Tier.live,
        mend="do what `llamastack.provider.store` says of each method",
    )
    async def test_records_as_a_dict(self, subject: StoreSubject) -> None:
        """in any order of steps, every method gives what a dict with versions and expiry would give"""
        followed, other = subject.new_kind(), subject.new_kind()
        async with subject.empty([followed]) as store:
            for seed in _SEEDS:
                for kind in (followed, other):
                    for record in await store.scan(kind, limit=100):
                        await store.delete(kind, record.key)
                beside = StoreBesideDict(store, followed, other, seed)
                await beside.run(_STEPS)

    @check("records.keys", tier=Tier.live, mend="compare keys as they are, and order them by code points")
    async def test_records_keys(self, subject: StoreSubject) -> None:
        """keys that differ in case, spaces, accents or signs are different keys, in the order of code points"""
        kind = subject.new_kind()
        async with subject.empty() as store:
            for number, key in enumerate(_KEYS):
                await store.put(kind, key, str(number))
            for number, key in enumerate(_KEYS):
                found = await store.get(kind, key)
                expect(f"get({key[:20]!r})", found and (found.key, found.value), (key, str(number)))
            found_keys = [record.key for record in await store.scan(kind, limit=1000)]
            expect("scan()", found_keys, sorted(_KEYS))
            for key in ("%", "_", "*", "a", "\\", "\U00010000"):
                found_keys = [record.key for record in await store.scan(kind, prefix=key, limit=1000)]
                expect(f"scan(prefix={key!r})", found_keys, [each for each in sorted(_KEYS) if each.startswith(key)])

    @check("records.impossible", tier=Tier.live, mend="call `check_record` of llamastack.provider.store before writing")
    async def test_records_impossible(self, subject: StoreSubject) -> None:
        """an empty key, and text with a lone surrogate, is a ValueError, and nothing is kept of it"""
        kind = subject.new_kind()
        async with subject.empty() as store:
            for key, value in (("", "x"), ("\ud800", "x"), ("a\udfff", "x"), ("k", "\ud800")):
                for what in ("put", "swap"):
                    try:
                        if what == "put":
                            await store.put(kind, key, value)
                        else:
                            await store.swap(kind, key, value, version=None)
                    except ValueError:
                        continue
                    raise CheckFailure(f"{what}({key!r}, {value!r}) was accepted")
            expect("scan()", await store.scan(kind, limit=10), [])

    @check("records.values", tier=Tier.live, mend="keep the text as it is; a value has up to 8 MiB")
    async def test_records_values(self, subject: StoreSubject) -> None:
        """any text is kept as it is, from the empty one to one of 8 MiB"""
        kind = subject.new_kind()
        async with subject.empty() as store:
            for number, value in enumerate(_VALUES):
                kept = await store.put(kind, str(number), value)
                expect("put()", kept.value, value)
                expect("get()", await store.get(kind, str(number)), kept)
            expect("scan()", [r.value for r in await store.scan(kind, limit=100)], _VALUES)

    @check("records.kinds", tier=Tier.live, mend="a key is unique in its kind only")
    async def test_records_kinds(self, subject: StoreSubject) -> None:
        """records of two kinds under one key are two records"""
        kinds = [subject.new_kind(), subject.new_kind()]
        async with subject.empty() as store:
            kept = [await store.put(kind, "a", kind) for kind in kinds]
            expect("get()", [await store.get(kind, "a") for kind in kinds], kept)
            expect("delete()", await store.delete(kinds[0], "a"), True)
            expect("scan()", [await store.scan(kind, limit=5) for kind in kinds], [[], kept[1:]])

    @check("versions.grow", tier=Tier.live, mend="take versions from one counter that deletions do not turn back")
    async def test_versions_grow(self, subject: StoreSubject) -> None:
        """each change has a greater version than all before, over all kinds, even after a deletion"""
        followed, other = subject.new_kind(), subject.new_kind()
        async with subject.empty([followed]) as store:
            newest = 0
            for kind in (followed, other, followed, other):
                newest = now_later(await store.put(kind, "a", "1"), newest, "put()").version
                added = await store.swap(kind, "b", "1", version=None)
                newest = now_later(added, newest, "swap()").version
                tombstone = await store.swap(kind, "b", None, version=newest)
                newest = now_later(tombstone, newest, "swap() to None").version
                await store.delete(kind, "a")
                newest = now_later(await store.put(kind, "a", "1"), newest, "put() after delete()").version

    @check("swap.compares", tier=Tier.live, mend="compare the version and write in one transaction")
    async def test_swap_compares(self, subject: StoreSubject) -> None:
        """swap changes a record only if its version is the given one; None: only if nothing is there"""
        kind = subject.new_kind()
        async with subject.empty() as store:
            first = now_later(await store.swap(kind, "a", "1", version=None), 0, "swap(version=None) of nothing")
            await _is_refused(store, first, None, "swap(version=None) of what is there")
            await _is_refused(store, first, first.version + 1, "swap() with a newer version")
            second = now_later(
                await store.swap(kind, "a", "2", version=first.version), first.version, "swap() with the right version"
            )
            await _is_refused(store, second, first.version, "swap() with an old version")
            now_later(await store.swap(kind, "a", None, version=second.version), second.version, "swap() to None")
            expect("get() after swap() to None", await store.get(kind, "a"), None)
            kept = await store.swap(kind, "a", "3", version=second.version)
            expect("swap() with the version of a deleted record", kept, None)
            try:
                await store.swap(kind, "a", None, version=None)
            except ValueError:
                return
            raise CheckFailure("swap() of None to None, which changes nothing, was accepted; right is ValueError")

    @check("scan.pages", tier=Tier.live, mend="give the records after `after`, at most `limit`, in the order of keys")
    async def test_scan_pages(self, subject: StoreSubject) -> None:
        """pages of a scan have every record once, in order, whatever their size"""
        kind = subject.new_kind()
        keys = [f"{number % 7}-{number}" for number in range(120)]
        async with subject.empty() as store:
            for key in keys:
                await store.put(kind, key, "1")
            for limit in (1, 7, 120, 1000):
                found: list[str] = []
                while page := await store.scan(kind, after=found[-1] if found else "", limit=limit):
                    if found and page[0].key <= found[-1]:
                        raise CheckFailure(f"scan(after={found[-1]!r}) begins with {page[0].key!r}")
                    expect(f"the size of a page of {limit}", len(page) <= limit, True)
                    found += [record.key for record in page]
                expect(f"all pages of {limit}", found, sorted(keys))

    @check("expiry.over", tier=Tier.live, mend="let every method leave out what has expired")
    async def test_expiry_over(self, subject: StoreSubject) -> None:
        """a record is there until `expires_at`, and from then on as if deleted"""
        kind = subject.new_kind()
        async with subject.empty([kind]) as store:
            soon = time.time() + 1.0
            short = await store.put(kind, "short", "1", expires_at=soon)
            added = await store.swap(kind, "added", "1", version=None, expires_at=soon)
            stays = await store.put(kind, "stays", "1", expires_at=soon)
            longer = await store.put(kind, "longer", "1", expires_at=soon + 3600)
            stays = now_later(await store.swap(kind, "stays", "2", version=stays.version), 0, "swap()")
            if time.time() < soon:
                expect("get() before `expires_at`", await store.get(kind, "short"), short)
            await anyio.sleep(max(0.0, soon - time.time()) + 0.05)
            expect("get() after `expires_at`", await store.get(kind, "short"), None)
            expect("get() of what swap() put", await store.get(kind, "added"), None)
            expect("scan()", await store.scan(kind, limit=9), [longer, stays])
            changes = await store.changes_since(0, [kind])
            expect("changes_since(0)", sorted(changes.records), [longer, stays])
            expect("delete()", await store.delete(kind, "short"), False)
            expect("swap() of it", await store.swap(kind, "short", "2", version=short.version), None)
            again = await store.swap(kind, "short", "2", version=None)
            now_later(again, short.version, "swap(version=None) of it")
            expect("get() after that", await store.get(kind, "short"), again)
            expect("swap() gave", added and added.expires_at, soon)


async def _is_refused(store: Store, there: Record, version: int | None, what: str) -> None:
    for value in ("x", None) if version is not None else ("x",):
        expect(what, await store.swap(there.kind, there.key, value, version=version), None)
        expect(f"get() after {what}", await store.get(there.kind, there.key), there)
